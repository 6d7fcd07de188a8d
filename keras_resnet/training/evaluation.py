"""Loss and error of a net on a data set."""

from __future__ import annotations

import keras
import numpy as np

from keras_resnet.training import backends

EVALUATION_BATCH = 500


def logits_of(net: keras.Model) -> keras.Model:
    """The same net up to its logits: the loss is computed from these, which cannot saturate."""
    return keras.Model(net.input, net.get_layer("head_dense").output)


def evaluate(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy and error in percent of a model that returns logits `(N, classes)`."""
    logits = backends.current().predict(model, images, EVALUATION_BATCH).astype(np.float64)
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    loss = float(np.mean(log_sum - logits[np.arange(len(labels)), labels]))
    return loss, float(np.mean(logits.argmax(axis=1) != labels) * 100)
