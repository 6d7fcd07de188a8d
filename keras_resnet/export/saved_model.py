"""SavedModel: write it, and open it as its users do."""

from pathlib import Path

import keras
import tensorflow as tf

from keras_resnet.export.signature import INPUT, SIGNATURE, Predict
from keras_resnet.inference.open import open_net

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
    """Open the folder as its users do, by its signature."""
    return open_net(path).run
