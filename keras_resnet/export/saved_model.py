"""SavedModel: how it is written, and how it is run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.export import signature
from keras_resnet.export.signature import Runner


def write(serving: keras.Model, path: Path) -> None:
    """Write the folder `path`, with the one signature of `signature.py`."""
    # `serving.export()` writes every weight twice and takes three times as long (Keras 3.15).
    module = tf.Module()
    module.weights = [variable.value for variable in serving.variables]
    module.serve = signature.tensorflow_function(serving)
    try:
        tf.saved_model.save(module, str(path), signatures={signature.NAME: module.serve})
    except tf.errors.OpError as error:  # a full disk, above all
        raise OSError(f"the SavedModel could not be written: {error.message}") from None


def runner(path: Path) -> Runner:
    """Open the folder as its users do."""
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures[signature.NAME]

    def run(images: np.ndarray, _keep: Any = loaded) -> tuple[np.ndarray, np.ndarray]:
        outputs = serve(**{signature.INPUT: tf.constant(images)})
        probabilities, class_id = (outputs[name].numpy() for name in signature.OUTPUTS)
        return probabilities, class_id

    return run
