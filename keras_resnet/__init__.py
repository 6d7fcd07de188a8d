"""The CIFAR networks of He et al. 2015 in Keras 3: build, train, export, use."""

from keras_resnet.layers import BatchNormalization, RandomPadCrop, ZeroPadShortcut
from keras_resnet.models import plain, resnet
from keras_resnet.optimizers import SGD, learning_rate_schedule

__version__ = "0.1.0"
__all__ = [
    "SGD",
    "BatchNormalization",
    "RandomPadCrop",
    "ZeroPadShortcut",
    "learning_rate_schedule",
    "plain",
    "resnet",
]
