"""The interface of every exported file, and what the formats have in common.

`image` uint8 `(N, H, W, C)` in; `probabilities` float32 `(N, classes)` and `class_id` int64 `(N,)` out.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# uint8 images -> (probabilities, class ids)
Runner = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class _ClassId(keras.layers.Layer):
    """Index of the largest probability.

    `keras.ops.argmax` adds bit operations for -0.0, which neither tf2onnx nor LiteRT knows.
    """

    def call(self, probabilities: Any) -> Any:
        return tf.argmax(probabilities, axis=-1, output_type=tf.int64)


def serving_model(net: keras.Model) -> keras.Model:
    """The net with the interface of the exported files. The net must be float32."""
    image = keras.Input(net.input_shape[1:], dtype="uint8", name="image")
    probabilities = net(image)
    outputs = {
        "probabilities": probabilities,
        "class_id": _ClassId(name="class_id")(probabilities),
    }
    return keras.Model(image, outputs, name="serving")


def input_signature(serving: keras.Model) -> list[keras.InputSpec]:
    """The input's name, shape and dtype, as `keras.Model.export` takes it."""
    return [keras.InputSpec(shape=serving.input_shape, dtype="uint8", name="image")]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the deprecation notes of Keras, tf2onnx and TensorFlow about each other."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*np.object.*")
            warnings.filterwarnings("ignore", category=UserWarning, message=r"(?s).*tf\.lite.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
