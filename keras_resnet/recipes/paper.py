"""The recipe of He et al. 2015 (arXiv:1512.03385), section 4.2.

    python train.py --depth 20

ResNet-20 on two cores of an Intel Xeon (amx_bf16), bfloat16: 2.7 hours, test error 8.68 % (one run;
the paper: 8.75 %).
"""

from keras_resnet.recipes.recipe import Recipe

# fmt: off
PAPER = Recipe(
    name="paper",
    steps=64_000,           # "terminate training at 64k iterations", 182 epochs of 45,000 images
    batch_size=128,         # "a mini-batch size of 128"
    learning_rate=0.1,      # "start with a learning rate of 0.1"
    schedule="step",        # "divide it by 10 at 32k and 48k iterations"
    warmup_steps=400,       # 110 layers: "0.01 to warm up the training until the training error is
    warmup_min_depth=110,   # below 80% (about 400 iterations), and then go back to 0.1"
    momentum=0.9,           # "and momentum of 0.9"
    nesterov=False,
    weight_decay=1e-4,      # "We use a weight decay of 0.0001"
)
# fmt: on
