"""The trained nets that come with the package, by name."""

from __future__ import annotations

from keras_resnet.inference.open import DEFAULT_MODEL

FOLDER = DEFAULT_MODEL
NAMES = ("cifar10",)
# What the shipped net is; `nets.describe.describe` says the same of any net.
SHIPPED = {"model": "resnet", "depth": 20, "shortcut": "zeropad", "num_classes": 10}
