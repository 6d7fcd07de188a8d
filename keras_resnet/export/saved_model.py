"""SavedModel: write it. `inference/open.py` opens it."""

from pathlib import Path

import keras
import tensorflow as tf

from keras_resnet.export.signature import INPUT, SIGNATURE

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
