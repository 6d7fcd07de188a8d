"""What a net is, read from its layers, whether it is as trained or rebuilt by `stock`."""

import math
import re
from typing import Any

import keras
import numpy as np

from keras_resnet.data import constants


def describe(net: keras.Model) -> dict[str, Any]:
    """Which of our nets a Keras model is: model, depth, shortcut (None for others), classes and shape."""
    names = {layer.name for layer in net.layers}
    model = depth = shortcut = None
    if {"normalization", "stem_conv", "stage3_block1_conv2", "head_pool"} <= names:
        depth = 6 * sum(bool(re.fullmatch(r"stage1_block\d+_conv1", name)) for name in names) + 2
        model = "resnet" if "stage1_block1_add" in names else "plain"
    if model == "resnet":
        if "stage1_block1_shortcut_bn" in names:
            shortcut = "projection-all"
        elif "stage2_block1_shortcut_bn" in names:
            shortcut = "projection"
        else:
            poolings = {getattr(layer, "pooling", None) for layer in net.layers}
            maxpool = "max" in poolings or "stage2_block1_shortcut_pool" in names
            shortcut = "zeropad-maxpool" if maxpool else "zeropad"
    ends = (getattr(net, f"{end}put_shape", None) or (None,) for end in ("out", "in"))  # if built
    (*_, classes), (_, *shape) = ends
    shapes = {"num_classes": classes, "input_shape": tuple(shape)}
    return {"model": model, "depth": depth, "shortcut": shortcut, **shapes}


def count_parameters(net: keras.Model) -> int:
    """How many parameters are trainable."""
    return sum(math.prod(variable.shape) for variable in net.trainable_variables)


def normalization_of(net: keras.Model) -> np.ndarray | None:
    """Mean and std per channel in pixel units, float64 `(2, channels)`; None without our Rescaling."""
    layer = next((layer for layer in net.layers if layer.name == "normalization"), None)
    if not isinstance(layer, keras.layers.Rescaling) or not np.all(layer.scale):
        return None
    scale, offset = np.broadcast_arrays(np.ravel(layer.scale), np.ravel(layer.offset))
    return np.stack([-offset / scale, 1 / scale])


def recognize_dataset(net: keras.Model) -> str | None:
    """The data set whose mean, std and number of classes a net has, if it is one of ours."""
    normalization = normalization_of(net)
    for name, expected in constants.NORMALIZATION.items():
        if normalization is not None and normalization.shape == np.shape(expected):
            classes = len(constants.CLASS_NAMES[name])
            if np.allclose(normalization, expected) and net.output_shape[-1] == classes:
                return name
    return None
