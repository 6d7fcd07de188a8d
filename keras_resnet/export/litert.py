"""LiteRT: write it, and open it as its users do."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import console
from keras_resnet.export.signature import SIGNATURE, Predict, export, without_warnings

FILE = "model.tflite"
_DELEGATE_NOTE = re.compile(rb"INFO: Created TensorFlow Lite")  # once per process


def write(serving: keras.Model, path: Path) -> None:
    """Write the file with LiteRT's own operations: others would need TensorFlow on the phone."""
    operations = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    export(serving, path, "litert", target_spec=operations)


def load(path: Path) -> Predict:
    """Open the file as its users do."""
    with without_warnings(), console.without_lines(_DELEGATE_NOTE):
        interpreter = tf.lite.Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
    index = interpreter.get_input_details()[0]["index"]

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.resize_tensor_input(index, images.shape)
        interpreter.allocate_tensors()
        outputs: dict[str, np.ndarray] = interpreter.get_signature_runner(SIGNATURE)(image=images)
        return outputs

    return predict
