"""A data set in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_resnet.data.constants import NORMALIZATION
from keras_resnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels to train on, and to test with.

    Args:
        name: `"cifar10"`, `"cifar100"` or `"synthetic"`.
        class_names: in label order.
        train_images, test_images: uint8 `(N, height, width, channels)`, all of one size.
        train_labels, test_labels: integers `(N,)`, each an index into `class_names`.

    Raises:
        ValueError: where an array is of another type, shape or range, or has no images.
    """

    name: str
    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    def __post_init__(self) -> None:
        last = len(self.class_names) - 1
        for part in ("train", "test"):
            images = np.asanyarray(getattr(self, f"{part}_images"))
            labels = np.asanyarray(getattr(self, f"{part}_labels"))
            kind, shape = images.dtype.name, images.shape
            same_size = shape[1:] == np.shape(self.train_images)[1:]
            if kind != "uint8" or images.ndim != 4 or not len(images) or not same_size:
                hint = "; (255 * images).round().astype('uint8') makes pixels of 0 to 1"
                raise ValueError(
                    f"`{part}_images` must be a uint8 array (N, height, width, channels), N of 1 or "
                    "more, training and test images of the same size. Received: "
                    f"{kind} {shape}{hint if kind.startswith('float') else ''}"
                )
            kind, fits = labels.dtype.name, labels.shape == shape[:1]
            if "int" not in kind or not fits or labels.min() < 0 or labels.max() > last:
                values = f", from {labels.min()} to {labels.max()}" if fits else ""
                raise ValueError(
                    f"`{part}_labels` must be an integer array ({len(images)},) of 0 to {last}: for "
                    f"each image an index into `class_names`. Received: {kind} {labels.shape}{values}"
                )
            object.__setattr__(self, f"{part}_images", images)
            object.__setattr__(self, f"{part}_labels", labels)

    def check_classes(self, names: Sequence[str]) -> None:
        """Raise UserError where a net's classes, in its order, are not those of this data set.

        The names `class 0`, `class 1`, ... stand for any: nobody has named that net's classes.
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
