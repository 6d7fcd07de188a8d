"""What a built net is, read from its layers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_resnet.data import constants


def describe(net: keras.Model) -> dict[str, Any]:
    """What a net of ours is, read from its layers.

    Returns:
        `{"model": "resnet" | "plain", "depth": int, "shortcut": str | None, "num_classes": int,
        "input_shape": (height, width, channels)}`
    """
    layers = {layer.name: layer for layer in net.layers}
    depth = 6 * sum(bool(re.fullmatch(r"stage1_block\d+_conv1", name)) for name in layers) + 2
    shortcut = None
    if "stage1_block1_add" in layers:
        first, second = (layers.get(f"stage{k}_block1_shortcut") for k in (1, 2))
        if isinstance(first, keras.layers.Conv2D):
            shortcut = "projection-all"
        elif isinstance(second, keras.layers.Conv2D):
            shortcut = "projection"
        else:
            shortcut = "zeropad-maxpool" if getattr(second, "pooling", None) == "max" else "zeropad"
    return {
        "model": "resnet" if shortcut else "plain",
        "depth": depth,
        "shortcut": shortcut,
        "num_classes": net.output_shape[-1],
        "input_shape": tuple(net.input_shape[1:]),
    }


def recognize_dataset(net: keras.Model) -> str | None:
    """The data set whose normalization and number of classes a net has; None if it is none of ours."""
    layer = net.get_layer("normalization")
    for name, (mean, std) in constants.NORMALIZATION.items():
        if np.size(layer.scale) not in (1, len(mean)):
            continue
        if net.output_shape[-1] != len(constants.CLASS_NAMES[name]):
            continue
        offset = [-m / s for m, s in zip(mean, std, strict=True)]
        ours = np.array([[1 / s for s in std], offset])
        theirs = np.broadcast_to(
            np.array([layer.scale, layer.offset]).reshape(2, -1), (2, len(mean))
        )
        if np.allclose(ours, theirs, rtol=1e-6):
            return name
    return None


def as_float32(net: keras.Model) -> keras.Model:
    """The same net with float32 layers and the same weights; a float32 net is returned as it is."""
    if all(layer.dtype_policy.name == "float32" for layer in net.layers):
        return net
    config = json.loads(json.dumps(net.get_config()))
    for part in parts(config):
        if part["class_name"] == "DTypePolicy":
            part["config"] = {"name": "float32"}
    copy = keras.Model.from_config(config)
    copy.set_weights(net.get_weights())
    return copy


def parts(config: Any) -> Iterator[dict[str, Any]]:
    """Every object with a class name in a config."""
    pending = [config]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if "class_name" in part:
                yield part
            pending += part.values()
        elif isinstance(part, list | tuple):
            pending += part
