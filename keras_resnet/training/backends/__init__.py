"""What differs between Keras's backends: one small module for each, with the same functions."""

from __future__ import annotations

import keras

from keras_resnet.training.backends.base import Backend


def current() -> Backend:
    """The module of the backend that Keras has."""
    match keras.backend.backend():
        case "tensorflow":
            from keras_resnet.training.backends import tensorflow

            return tensorflow
        case "jax":
            from keras_resnet.training.backends import jax

            return jax
        case "torch":
            from keras_resnet.training.backends import torch

            return torch
    raise AssertionError(keras.backend.backend())  # commands refuse others
