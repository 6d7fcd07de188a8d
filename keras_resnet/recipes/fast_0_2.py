"""The recipe `fast` of version 0.2: SGD, a quarter of the paper's updates. `fast` needs fewer.

    python train.py --recipe fast-0.2 --depth 20

ResNet-20 on two cores of an AMD EPYC (avx512_bf16), bfloat16: 24 minutes, test error
8.82 +- 0.23 % (seeds 0 to 2; the paper, in 64,000 updates: 8.75 %).

What was tried, how it was chosen (by validation error) and what did not help: docs/recipes.md.
"""

from __future__ import annotations

from keras_resnet.recipes.recipe import Recipe

# fmt: off
FAST_0_2 = Recipe(
    name="fast-0.2",
    steps=16_000,           # 45 epochs of 45,000 images
    batch_size=128,
    learning_rate=0.2,
    schedule="cosine",      # no rate to wait out: the error falls until the last update
    warmup_steps=1_000,
    warmup_shape="linear",  # 0.2 from the first update on costs the deep nets their start
    warmup_min_depth=0,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,      # fewer updates to decay in than the paper has: a stronger decay
)
# fmt: on
