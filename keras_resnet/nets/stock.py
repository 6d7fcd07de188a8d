"""Stand-in."""

from keras_resnet.nets.describe import as_float32

stock = as_float32
