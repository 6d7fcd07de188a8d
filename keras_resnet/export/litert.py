"""LiteRT: how it is written, and how it is run again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.export import signature
from keras_resnet.export.quiet import quiet
from keras_resnet.export.signature import Runner

_NOTES = re.compile(rb"INFO: Created TensorFlow Lite")  # once per process, about its delegate


def write(serving: keras.Model, path: Path) -> None:
    """Write the file `path`."""
    serving.export(
        path,
        format="litert",
        input_signature=signature.keras_spec(serving),
        verbose=False,
        # Without SELECT_TF_OPS a Flex op is an error.
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
    )


def runner(path: Path) -> Runner:
    """Open the file as its users do."""
    with quiet(), console.without_lines(_NOTES):
        interpreter = litert_interpreter()(model_path=str(path))
        interpreter.allocate_tensors()

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(index, images.shape)
        interpreter.allocate_tensors()
        outputs = interpreter.get_signature_runner(signature.NAME)(**{signature.INPUT: images})
        probabilities, class_id = (outputs[name] for name in signature.OUTPUTS)
        return probabilities, class_id

    return run


def litert_interpreter() -> Any:
    """The interpreter class of ai-edge-litert, else of TensorFlow; UserError without both."""
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    except ImportError:
        pass
    if hasattr(getattr(tf, "lite", None), "Interpreter"):
        return tf.lite.Interpreter
    raise UserError(
        f"`formats` litert needs an interpreter to verify with, and TensorFlow {tf.__version__} "
        "has none any more; pip install ai-edge-litert, or leave litert out"
    )


def check_litert() -> None:
    """Raise UserError, naming what is missing, where LiteRT cannot be written or run."""
    if not hasattr(getattr(tf, "lite", None), "TFLiteConverter"):
        raise UserError(
            "`formats` litert needs tf.lite.TFLiteConverter, which TensorFlow "
            f"{tf.__version__} does not have; use TensorFlow 2.21, or leave litert out"
        )
    litert_interpreter()
