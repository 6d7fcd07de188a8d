"""Measure a trained net on labelled images: error, loss, confusion matrix, speed.

    result = keras_resnet.evaluate(keras_resnet.Classifier.load("resnet20"), images, labels)
    result.error, result.loss, result.confusion

Training, which has logits already, uses `loss_and_error`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_resnet.data.images import images_per_chunk
from keras_resnet.inference.probabilities import to_probabilities

_EPSILON = 1e-7  # Keras's: probabilities are clipped to it before the logarithm of the loss


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measures.

    Attributes:
        confusion: int64 `(classes, classes)`: images of class [row] that were taken for [column].
        loss: mean cross-entropy, nats.
        images_per_second: after a warm-up.
    """

    confusion: np.ndarray
    loss: float
    images_per_second: float

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def wrong(self) -> int:
        return self.images - int(np.trace(self.confusion))

    @property
    def error(self) -> float:
        """Percent."""
        return 100 * self.wrong / self.images


def evaluate(
    model: Any,
    images: Any,
    labels: Any,
    progress: Callable[[int], object] = lambda images: None,
) -> Evaluation:
    """Run a net over labelled images.

    Args:
        model: a `Classifier`, a Keras model, or any function from uint8 images to probabilities or logits
            `(N, classes)`, which a softmax then makes probabilities.
        images: uint8 `(N, height, width, channels)`, of the size that the net takes.
        labels: integers `(N,)`, 0 to classes - 1; a list is taken too.
        progress: is called with the number of images that were done since the last call.

    Raises:
        ValueError: for images or labels of another kind, none, another number of labels than of images, or
            a label out of range.
        UserError: where the net returns anything but a row of finite numbers for each image.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    _check(images, labels, getattr(model, "image_size", images.shape[1:3]))
    run = model.predict_on_batch if hasattr(model, "predict_on_batch") else model
    source = str(getattr(model, "path", "the net"))
    name = getattr(model, "output_name", "") or ""
    chunk = images_per_chunk(*images.shape[1:3])

    def probabilities(start: int, stop: int) -> np.ndarray:
        part = images[start:stop]
        return to_probabilities(run(part), len(part), source, name)

    # A graph may be compiled for each size of a chunk.
    for size in {min(chunk, len(images)), len(images) % chunk or chunk}:
        classes = probabilities(0, size).shape[1]
    if labels.max() >= classes:
        raise ValueError(f"`labels` must be 0 to {classes - 1}. Received: {labels.max()}")
    start = time.perf_counter()
    parts = []
    for first in range(0, len(images), chunk):
        parts.append(probabilities(first, first + chunk))
        progress(len(parts[-1]))
    rows = np.concatenate(parts)
    seconds = time.perf_counter() - start
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, rows.argmax(axis=1)), 1)
    true = rows[np.arange(len(labels)), labels].astype(np.float64)
    loss = float(-np.log(np.clip(true, _EPSILON, 1)).mean())
    return Evaluation(confusion, loss, len(images) / seconds)


def loss_and_error(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy in nats, and error in percent, of logits `(N, classes)` with labels `(N,)`."""
    logits = logits.astype(np.float64)
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    loss = float(np.mean(log_sum - logits[np.arange(len(labels)), labels]))
    return loss, float(np.mean(logits.argmax(axis=1) != labels) * 100)


def _check(images: np.ndarray, labels: np.ndarray, size: tuple[int, ...]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            "`images` must be one or more, a uint8 array (N, height, width, channels). "
            f"Received: {images.dtype} array of shape {images.shape}"
        )
    if images.shape[1:3] != size:
        raise ValueError(f"`images` must be of {size} pixels. Received: {images.shape[1:3]}")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers, one per image, of shape ({len(images)},). "
            f"Received: {labels.dtype} array of shape {labels.shape}"
        )
    if labels.min() < 0:
        raise ValueError(f"`labels` must be 0 or more. Received: {labels.min()}")
