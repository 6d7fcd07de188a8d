"""SavedModel: write it, and open it as its users do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.export.signature import INPUT, SIGNATURE, Predict

FOLDER = "saved_model"


def write(serving: keras.Model, path: Path) -> None:
    """Write the folder with the signature of `signature.py`."""
    # `serving.export()` writes every weight twice and takes three times as long (Keras 3.15).
    image = serving.inputs[0]
    spec = tf.TensorSpec(image.shape, image.dtype, name=INPUT)
    module = tf.Module()
    module.weights = [variable.value for variable in serving.variables]
    module.serve = tf.function(lambda image: serving(image, training=False), input_signature=[spec])
    try:
        tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.serve})
    except tf.errors.OpError as error:  # most often a full disk
        raise OSError(f"the SavedModel could not be written: {error.message}") from None


def load(path: Path) -> Predict:
    """Open the folder as its users do."""
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures[SIGNATURE]

    def predict(images: np.ndarray, _keep: Any = loaded) -> dict[str, np.ndarray]:
        outputs = serve(**{INPUT: tf.constant(images)})
        return {name: values.numpy() for name, values in outputs.items()}

    return predict
