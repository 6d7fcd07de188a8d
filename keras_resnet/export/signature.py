"""The signature of every exported file: its inputs and outputs, and their names.

`image` uint8 `(N, H, W, 3)` in; `probabilities` float32 `(N, classes)` and `class_id` int64 `(N,)` out.
SavedModel, ONNX and LiteRT share it; the snippets of `card.py` and `inference/open.py` use the same names.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import console
from keras_resnet.errors import UserError

INPUT, INPUT_DTYPE = "image", "uint8"
OUTPUTS = ("probabilities", "class_id")

Predict = Callable[[np.ndarray], dict[str, np.ndarray]]  # from images to outputs by name


class _ClassId(keras.layers.Layer):
    """Index of the largest value. `keras.ops.argmax` adds operations that tf2onnx and LiteRT lack."""

    def call(self, probabilities: Any) -> Any:
        return tf.argmax(probabilities, axis=-1, output_type=tf.int64)


def with_probabilities(net: keras.Model, file: Path) -> keras.Model:
    """The net, followed by a softmax if it returns logits, which its outputs for noise show.

    Raises:
        UserError: where it is no classifier of RGB images of one size.
    """
    shapes = [
        [tuple(x.shape) for x in getattr(net, name, None) or []] for name in ("inputs", "outputs")
    ]
    match shapes:
        case [[(None, int(height), int(width), 3)], [(None, int(classes))]] if classes > 1:
            noise = np.random.default_rng(0).integers(0, 256, (8, height, width, 3))
        case inputs, outputs:
            raise UserError(
                f"{file} must take RGB images (N, height, width, 3) and return probabilities or logits "
                f"(N, classes). Received: inputs {inputs}; outputs {outputs}"
            )
    net = keras.Model(net.inputs[0], net.outputs[0], name=net.name)  # no lists or dicts of one
    values = np.asarray(net(noise.astype(np.float32), training=False))
    if values.min() >= 0 and np.allclose(values.sum(axis=-1), 1, atol=1e-3):
        return net
    console.print_line(f"note: {file} returns logits; the exported files apply a softmax to them")
    softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
    return keras.Model(net.inputs[0], softmax(net.outputs[0]), name=net.name)


def serving_model(net: keras.Model) -> keras.Model:
    """The net with this signature.

    Args:
        net: float32, from pixels `(N, H, W, 3)` to probabilities `(N, classes)`.
    """
    for layer in net._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            # tf2onnx would make its tensors inputs of the ONNX graph.
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    image = keras.Input(net.input_shape[1:], dtype=INPUT_DTYPE, name=INPUT)
    probabilities = net(image, training=False)  # else augmentation layers would be exported
    class_id = _ClassId(name="class_id")(probabilities)
    outputs = dict(zip(OUTPUTS, (probabilities, class_id), strict=True))
    return keras.Model(image, outputs, name="serving")


def export(serving: keras.Model, path: Path, format: str, **options: Any) -> None:
    """Let Keras write an ONNX or LiteRT file with this signature."""
    spec = keras.InputSpec(shape=serving.input_shape, dtype=INPUT_DTYPE, name=INPUT)
    with without_warnings():
        serving.export(path, format=format, input_signature=[spec], verbose=False, **options)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Hide the warnings that Keras, tf2onnx and TensorFlow give about each other."""
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
