"""SavedModel and LiteRT: write them, and open them as their users do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import console
from keras_resnet.export.signature import INPUT, Predict, export, without_warnings

_SIGNATURE = "serving_default"
_DELEGATE_NOTE = re.compile(rb"INFO: Created TensorFlow Lite")  # once per process


def write_saved_model(serving: keras.Model, path: Path) -> None:
    """Write the folder `path` with the signature of `signature.py`."""
    # `serving.export()` writes every weight twice and takes three times as long (Keras 3.15).
    image = serving.inputs[0]
    spec = tf.TensorSpec(image.shape, image.dtype, name=INPUT)
    module = tf.Module()
    module.weights = [variable.value for variable in serving.variables]
    module.serve = tf.function(lambda image: serving(image, training=False), input_signature=[spec])
    try:
        tf.saved_model.save(module, str(path), signatures={_SIGNATURE: module.serve})
    except tf.errors.OpError as error:  # most often a full disk
        raise OSError(f"the SavedModel could not be written: {error.message}") from None


def load_saved_model(path: Path) -> Predict:
    """Open the folder as its users do."""
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures[_SIGNATURE]

    def predict(images: np.ndarray, _keep: Any = loaded) -> dict[str, np.ndarray]:
        outputs = serve(**{INPUT: tf.constant(images)})
        return {name: values.numpy() for name, values in outputs.items()}

    return predict


def write_litert(serving: keras.Model, path: Path) -> None:
    """Write the file `path` with LiteRT's own operations: others would need TensorFlow on the phone."""
    operations = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    export(serving, path, "litert", target_spec=operations)


def load_litert(path: Path) -> Predict:
    """Open the file as its users do."""
    with without_warnings(), console.without_lines(_DELEGATE_NOTE):
        interpreter = tf.lite.Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
    index = interpreter.get_input_details()[0]["index"]

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.resize_tensor_input(index, images.shape)
        interpreter.allocate_tensors()
        outputs: dict[str, np.ndarray] = interpreter.get_signature_runner(_SIGNATURE)(image=images)
        return outputs

    return predict
