"""A sixth of the paper's updates: Muon makes the steps of the kernels orthogonal.

    python train.py --recipe fast --depth 20

ResNet-20 on two cores of an AMD EPYC (avx512_bf16), bfloat16, with other work beside it: 20 minutes
(seed 0), test error 8.69 +- 0.18 % (seeds 0 to 4; the paper, in 64,000 updates: 8.75 %). ResNet-56:
59 minutes, 7.31 % (seed 0; the paper: 6.97 %).

`fast-0.2` is what `fast` was in version 0.2: SGD, a quarter of the paper's updates; 24 minutes,
8.82 +- 0.23 %.

What was tried, how it was chosen (by validation error) and what did not help: docs/recipes.md.
"""

from keras_resnet.recipes.recipe import Recipe

# fmt: off
FAST = Recipe(
    name="fast",
    steps=10_000,           # 28 epochs of 45,000 images
    batch_size=128,
    learning_rate=0.2,      # of batch normalization and the last layer, by SGD
    schedule="cosine",      # no plateaus: the error falls until the last update
    warmup_steps=625,       # a sixteenth; 0.2 from the first update on costs the deep nets their start
    warmup_min_depth=0,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,      # of batch normalization and the last layer
    kernel_rate=0.02,       # of the kernels, by Muon; 0.015 to 0.03 are alike
    crop_padding=2,         # in few epochs the images need to vary less
)
FAST_0_2 = Recipe(
    name="fast-0.2",
    steps=16_000,           # 45 epochs of 45,000 images
    batch_size=128,
    learning_rate=0.2,
    schedule="cosine",
    warmup_steps=1_000,
    warmup_min_depth=0,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,      # fewer updates to decay in than the paper has: a stronger decay
)
# fmt: on
