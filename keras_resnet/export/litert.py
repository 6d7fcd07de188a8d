"""LiteRT: write it, and open it as its users do."""

import re
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import console
from keras_resnet.export.signature import INPUT, SIGNATURE, Predict, export

FILE, INT8_FILE = "model.tflite", "model.int8.tflite"
_NOTES = re.compile(rb"INFO: Created TensorFlow Lite|fully_quantize: ")


def write(serving: keras.Model, path: Path, calibration: np.ndarray | None = None) -> None:
    """Write the file with LiteRT's own operations: others would need TensorFlow on the phone.

    `calibration`, from `quantize.calibration_batches`, makes it an 8-bit file.
    """
    options: dict[str, Any] = {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}
    if calibration is not None:
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
        options["representative_dataset"] = lambda: ({INPUT: batch} for batch in calibration)
    with console.without_lines(_NOTES):
        export(serving, path, "litert", **options)


def load(path: Path) -> Predict:
    """Open the file as its users do."""
    with warnings.catch_warnings(action="ignore"), console.without_lines(_NOTES):
        interpreter = tf.lite.Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
    run = interpreter.get_signature_runner(SIGNATURE)  # it takes any number of images
    return lambda images: run(image=images)
