"""The signature of every exported file: its inputs and outputs, and their names.

`image` uint8 `(N, H, W, 3)` in; `probabilities` float32 `(N, classes)` and `class_id` int64 `(N,)` out,
or what `Options` says. SavedModel, ONNX and LiteRT share it; the card's snippets and `inference/open.py`
use the same names.
"""

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.export.options import OUTPUTS, Options
from keras_resnet.inference.classifier import classifier_of
from keras_resnet.inference.open import keras_shapes, one_line

INPUT, SIGNATURE = "image", "serving_default"

Predict = Callable[[np.ndarray], Mapping[str, np.ndarray]]  # from images to outputs by name


class _ClassId(keras.layers.Layer):
    """Index of the largest value. `keras.ops.argmax` adds operations that tf2onnx and LiteRT lack."""

    def call(self, probabilities: Any) -> Any:
        return tf.argmax(probabilities, axis=-1, output_type=tf.int64)


def with_probabilities(net: keras.Model, file: Path) -> keras.Model:
    """The net, followed by a softmax if it returns logits, as its outputs for noise tell.

    Raises UserError where it is not a classifier of RGB images of one size.
    """
    inputs, outputs = keras_shapes(net)
    target, size, _ = classifier_of(file, inputs, outputs)
    noise = np.random.default_rng(0).integers(0, 256, (8, *size, 3))
    output = net.outputs[list(outputs).index(target)]
    net = keras.Model(net.inputs[0], output, name=net.name)  # no lists or dicts
    values = np.asarray(net(noise.astype(np.float32), training=False))
    if values.min() >= 0 and np.allclose(values.sum(axis=-1), 1, atol=1e-3):
        return net
    console.print_line(f"note: {file} returns logits; the exported files apply a softmax to them")
    is_free = all(layer.name != "probabilities" for layer in net.layers)
    softmax = keras.layers.Softmax(dtype="float32", name="probabilities" if is_free else None)
    return keras.Model(net.inputs[0], softmax(net.outputs[0]), name=net.name)


def with_all_outputs(net: keras.Model) -> keras.Model:
    """The net with a dict of outputs: probabilities, and logits and features where they are found."""
    outputs = {"probabilities": net.outputs[0]}
    last = net.outputs[0]._keras_history.operation
    softmax = getattr(last, "activation", None) is keras.activations.softmax
    if isinstance(last, keras.layers.Softmax) or (softmax and not last.weights):
        outputs["logits"] = last.input
        last = last.input._keras_history.operation
    if isinstance(last, keras.layers.Dense):
        outputs["features"] = last.input
    name = f"{net.name}_net" if net.name in (INPUT, *OUTPUTS) else net.name
    return keras.Model(net.inputs[0], outputs, name=name)


def serving_model(net: keras.Model, options: Options) -> keras.Model:
    """The net that `with_all_outputs` returned, with the signature of `options`.

    Raises UserError where the net lacks an output that is asked for.
    """
    for layer in net._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            # tf2onnx would make its tensors inputs of the ONNX graph.
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    height, width, channels = net.input_shape[1:]
    nchw = options.layout == "nchw"
    shape = (channels, height, width) if nchw else (height, width, channels)
    image = keras.Input(shape, options.batch_size, dtype=options.input, name=INPUT)
    pixels = keras.layers.Permute((2, 3, 1))(image) if nchw else image
    try:
        found = net(pixels, training=False)  # else augmentation layers would be exported
    except ValueError as error:  # a name that TensorFlow refuses, e.g. with a space
        raise UserError(f"{net.name} could not be run by TensorFlow: {one_line(error)}") from None
    found["class_id"] = _ClassId(name="class_id")(found["probabilities"])
    if missing := [name for name in options.outputs if name not in found]:
        raise UserError(
            f"`outputs` must be of {', '.join(found)}: this net does not end with a dense layer and a "
            f"softmax. Received: {', '.join(missing)}"
        )
    return keras.Model(image, {name: found[name] for name in options.outputs}, name="serving")


def export(serving: keras.Model, path: Path, format: str, **options: Any) -> None:
    """Let Keras write an ONNX or LiteRT file with this signature."""
    image = serving.inputs[0]
    spec = keras.InputSpec(shape=image.shape, dtype=image.dtype, name=INPUT)
    # Keras, tf2onnx and TensorFlow warn of each other.
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        serving.export(path, format=format, input_signature=[spec], verbose=False, **options)


def in_batches(predict: Predict, size: int | None) -> Predict:
    """A `predict` for any number of images from one that accepts exactly `size`, or any for None."""

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        count, step = len(images), size or len(images)
        rows = np.arange(-(-count // step) * step).reshape(-1, step) % count
        results = [predict(images[row]) for row in rows]
        return {k: np.concatenate([part[k] for part in results])[:count] for k in results[0]}

    return run
