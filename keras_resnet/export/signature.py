"""The signature of every exported file: what it takes, what it returns, and under which names.

`image` uint8 `(N, H, W, C)` in; `probabilities` float32 `(N, classes)` and `class_id` int64 `(N,)` out.
SavedModel, ONNX and LiteRT all write and read what stands here; the snippets of `card.py` and
`inference/open.py` know the names too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

NAME = "serving_default"  # of the signature, where a format has more than one
INPUT, INPUT_DTYPE = "image", "uint8"
OUTPUTS = ("probabilities", "class_id")  # in this order where a format has one

# uint8 images -> the outputs in the order of `OUTPUTS`
Runner = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class _ClassId(keras.layers.Layer):
    """Index of the largest probability.

    `keras.ops.argmax` adds bit operations for -0.0, which neither tf2onnx nor LiteRT knows.
    """

    def call(self, probabilities: Any) -> Any:
        return tf.argmax(probabilities, axis=-1, output_type=tf.int64)


def serving_model(net: keras.Model) -> keras.Model:
    """The net with this signature. The net must be float32."""
    image = keras.Input(net.input_shape[1:], dtype=INPUT_DTYPE, name=INPUT)
    probabilities = net(image)
    class_id = _ClassId(name="class_id")(probabilities)
    outputs = dict(zip(OUTPUTS, (probabilities, class_id), strict=True))
    return keras.Model(image, outputs, name="serving")


def tensorflow_function(serving: keras.Model) -> Any:
    """What `serving_model` returned as a `tf.function` with this signature, for SavedModel."""
    spec = tf.TensorSpec(serving.input_shape, INPUT_DTYPE, name=INPUT)
    return tf.function(lambda image: serving(image, training=False), input_signature=[spec])


def keras_spec(serving: keras.Model) -> list[keras.InputSpec]:
    """The input's name, shape and dtype, as `keras.Model.export` takes it, for ONNX and LiteRT."""
    return [keras.InputSpec(shape=serving.input_shape, dtype=INPUT_DTYPE, name=INPUT)]
