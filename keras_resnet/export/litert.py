"""LiteRT: write it, and open it as its users do."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import console
from keras_resnet.export.signature import (
    INPUT,
    NAME,
    OUTPUTS,
    Predict,
    input_signature,
    without_warnings,
)

_DELEGATE_NOTE = re.compile(rb"INFO: Created TensorFlow Lite")  # once per process


def write(serving: keras.Model, path: Path) -> None:
    """Write the file `path`."""
    with without_warnings():
        serving.export(
            path,
            format="litert",
            input_signature=input_signature(serving),
            verbose=False,
            # LiteRT's own operations only: others would need TensorFlow on the phone.
            target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
        )


def load(path: Path) -> Predict:
    """Open the file as its users do."""
    with without_warnings(), console.without_lines(_DELEGATE_NOTE):
        interpreter = tf.lite.Interpreter(model_path=str(path))
        interpreter.allocate_tensors()

    def predict(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(index, images.shape)
        interpreter.allocate_tensors()
        outputs = interpreter.get_signature_runner(NAME)(**{INPUT: images})
        probabilities, class_id = (outputs[name] for name in OUTPUTS)
        return probabilities, class_id

    return predict
