"""SavedModel: write it, and open it as its users do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.export.signature import INPUT, INPUT_DTYPE, NAME, OUTPUTS, Predict


def write(serving: keras.Model, path: Path) -> None:
    """Write the folder `path` with the signature of `signature.py`."""
    # `serving.export()` writes every weight twice and takes three times as long (Keras 3.15).
    spec = tf.TensorSpec(serving.input_shape, INPUT_DTYPE, name=INPUT)
    module = tf.Module()
    module.weights = [variable.value for variable in serving.variables]
    module.serve = tf.function(lambda image: serving(image, training=False), input_signature=[spec])
    try:
        tf.saved_model.save(module, str(path), signatures={NAME: module.serve})
    except tf.errors.OpError as error:  # most often a full disk
        raise OSError(f"the SavedModel could not be written: {error.message}") from None


def load(path: Path) -> Predict:
    """Open the folder as its users do."""
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures[NAME]

    def predict(images: np.ndarray, _keep: Any = loaded) -> tuple[np.ndarray, np.ndarray]:
        outputs = serve(**{INPUT: tf.constant(images)})
        probabilities, class_id = (outputs[name].numpy() for name in OUTPUTS)
        return probabilities, class_id

    return predict
