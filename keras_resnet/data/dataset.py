"""A data set in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_resnet.data.constants import NORMALIZATION
from keras_resnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images uint8 `(N, 32, 32, 3)` RGB, labels int32 `(N,)`, class names in label order."""

    name: str
    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    def check_classes(self, names: Sequence[str]) -> None:
        """Raise UserError where a net's classes, in its order, are not those of this data set.

        A net that nobody has named the classes of has `class 0`, `class 1`, ..., which may be any.
        """
        expected = self.class_names
        unnamed = all(name == f"class {k}" for k, name in enumerate(names))
        if len(names) != len(expected) or (tuple(names) != expected and not unnamed):
            raise UserError(
                f"the net's classes must be those of {self.name} ({len(expected)}: {expected[0]}, "
                f"{expected[1]}, ...). Received: {len(names)}: {names[0]}, {names[1]}, ...; name the "
                "net's data set with `dataset`"
            )

    @property
    def mean(self) -> tuple[float, ...]:
        """Channel means of the training images, 0..255."""
        return NORMALIZATION[self.name][0]

    @property
    def std(self) -> tuple[float, ...]:
        """Channel standard deviations of the training images, in pixel units."""
        return NORMALIZATION[self.name][1]
