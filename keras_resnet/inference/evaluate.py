"""Measure a trained net on labelled images: error, loss, confusion matrix, speed.

    result = keras_resnet.evaluate("resnet20", images, labels)
    result.error, result.loss, result.confusion

Training, which has logits already, uses `loss_and_error`.
"""

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_resnet.data.images import images_per_chunk
from keras_resnet.inference.classifier import Classifier, to_probabilities


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measures.

    Attributes:
        confusion: int64 `(classes, classes)`: images of class [row] that were taken for [column].
        loss: mean cross-entropy in nats, of probabilities that are taken as 1e-7 at the least.
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

    @property
    def class_errors(self) -> np.ndarray:
        """Percent of each class's images that are taken for another; 0 for a class without images."""
        images = self.confusion.sum(axis=1)
        return 100 * (images - np.diag(self.confusion)) / np.maximum(images, 1)


def evaluate(
    model: Any,
    images: Any,
    labels: Any,
    progress: Callable[[int], object] = lambda images: None,
) -> Evaluation:
    """Run a net over labelled images.

    Args:
        model: what `Classifier.load` takes or returns, a Keras model, or any function from uint8 images to
            probabilities or logits `(N, classes)`, which a softmax then makes probabilities.
        images: uint8 `(N, height, width, channels)`, of the size that the net takes.
        labels: integers `(N,)`, 0 to classes - 1; a list is accepted too.
        progress: called with the number of images done since its last call.

    Raises:
        TypeError, ValueError: for another kind of model; images or labels of another kind, number or range.
        UserError: where the net returns anything but a row of finite numbers for each image.
    """
    if isinstance(model, str | os.PathLike):
        model = Classifier.load(model)
    call = getattr(model, "predict_on_batch", model)
    if not callable(call):
        raise TypeError(
            "`model` must be a Classifier, the name or path of a net, a Keras model or a function. Received: "
            f"{model!r}"
        )
    images, labels = np.asarray(images), np.asarray(labels)
    sides: Any = ()  # of the images that the net takes; None: any
    if isinstance(model, Classifier):
        sides = (*model.image_size, 3)
    elif shape := getattr(model, "input_shape", None):
        sides = shape[1:]
    fits = all(side in (None, n) for side, n in zip(sides, images.shape[1:], strict=False))
    are_images = images.dtype == np.uint8 and images.ndim == 4 and fits
    are_labels = labels.dtype.kind in "iu" and labels.shape == images.shape[:1]
    if not are_images or not are_labels or not images.size:
        raise ValueError(
            "`images` must be uint8 (N, height, width, channels), at least one, each "
            f"{sides or 'of one size'}, `labels` N integers. Received: images {images.dtype} "
            f"{images.shape}, labels {labels.dtype} {labels.shape}"
        )

    def run(images: np.ndarray) -> np.ndarray:
        if isinstance(model, Classifier):
            return model(images)
        return to_probabilities(call(images), len(images), "the net", "")

    chunk = images_per_chunk(*images.shape[1:3])
    parts = [images[first : first + chunk] for first in range(0, len(images), chunk)]
    for part in (parts[0], parts[-1]):  # a graph may be compiled for each size of a chunk
        classes = run(part).shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"`labels` must be 0 to {classes - 1}. Received: {labels.min()} to {labels.max()}"
        )
    start, rows = time.perf_counter(), []
    for part in parts:
        rows.append(run(part))
        progress(len(part))
    seconds = time.perf_counter() - start
    probabilities = np.concatenate(rows)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    # Clipped as Keras does.
    true = np.clip(probabilities[np.arange(len(labels)), labels].astype(np.float64), 1e-7, 1)
    return Evaluation(confusion, float(-np.log(true).mean()), len(images) / seconds)


def loss_and_error(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy in nats, and error in percent, of logits `(N, classes)` with labels `(N,)`."""
    logits = logits.astype(np.float64)
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    loss = float(np.mean(log_sum - logits[np.arange(len(labels)), labels]))
    return loss, float(np.mean(logits.argmax(axis=1) != labels) * 100)
