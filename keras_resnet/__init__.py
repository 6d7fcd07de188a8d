"""The CIFAR networks of He et al. 2015 in Keras 3: build, train, export, use."""

import warnings

import keras_resnet._startup  # noqa: F401  first: it imports TensorFlow, with oneDNN
from keras_resnet._version import __version__
from keras_resnet.layers import BatchNormalization, RandomPadCrop, ZeroPadShortcut
from keras_resnet.models import plain, resnet
from keras_resnet.optimizers import SGD
from keras_resnet.recipes import learning_rate_schedule

__all__ = [
    "SGD",
    "BatchNormalization",
    "RandomPadCrop",
    "ZeroPadShortcut",
    "__version__",
    "learning_rate_schedule",
    "plain",
    "resnet",
]

# `python -m keras_resnet.models` is meant: that this package has imported the module is no mistake.
warnings.filterwarnings("ignore", "'keras_resnet.models' found in sys.modules", RuntimeWarning)
