"""A data set in memory."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_resnet.data.constants import NORMALIZATION


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images uint8 `(N, 32, 32, 3)` RGB, labels int32 `(N,)`, class names in label order."""

    name: str
    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def mean(self) -> tuple[float, ...]:
        """Channel means of the training images, 0..255."""
        return NORMALIZATION[self.name][0]

    @property
    def std(self) -> tuple[float, ...]:
        """Channel standard deviations of the training images, in pixel units."""
        return NORMALIZATION[self.name][1]
