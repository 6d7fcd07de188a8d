"""SavedModel: how it is written, and how it is run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.export.serving import Runner


def write(serving: keras.Model, path: Path) -> None:
    """Write the folder `path`, with the signature `serving_default`."""
    # `serving.export()` writes every weight twice and takes three times as long (Keras 3.15).
    module = tf.Module()
    module.weights = [variable.value for variable in serving.variables]
    spec = tf.TensorSpec(serving.input_shape, tf.uint8, name="image")
    serve = tf.function(lambda image: serving(image, training=False), input_signature=[spec])
    module.serve = serve
    try:
        tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    except tf.errors.OpError as error:  # a full disk, above all
        raise OSError(f"the SavedModel could not be written: {error.message}") from None


def runner(path: Path) -> Runner:
    """Open the folder as its users do."""
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]

    def run(images: np.ndarray, _keep: Any = loaded) -> tuple[np.ndarray, np.ndarray]:
        outputs = serve(image=tf.constant(images))
        return outputs["probabilities"].numpy(), outputs["class_id"].numpy()

    return run
