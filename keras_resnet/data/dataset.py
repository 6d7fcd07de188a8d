"""A data set in memory."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_resnet import console
from keras_resnet.console import printable
from keras_resnet.data import folders, stream
from keras_resnet.data.constants import NORMALIZATION, VAL_SIZE
from keras_resnet.errors import UserError, integer


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels to train on, and to test with.

    `Dataset.from_folder` and `Dataset.from_arrays` make one of your own images.

    Args:
        name: `"cifar10"`, `"cifar100"`, `"synthetic"`, or the name of a folder or file.
        class_names: in label order.
        train_images, test_images: uint8 `(N, height, width, channels)`, all of one size.
        train_labels, test_labels: integers `(N,)`, each an index into `class_names`.
        val_count: how many images at the end of `train_images` are for validation; 0 leaves that to `split`.
        data_dir: the parent of that folder or file.
        split_note: end of a sentence: where the test images come from, if none were given.

    Raises:
        ValueError: where an array is of another type, shape or range, or has no images.
    """

    name: str
    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    val_count: int = 0
    data_dir: str | None = None
    split_note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        last = len(self.class_names) - 1
        if not 0 <= integer("val_count", self.val_count) < len(self.train_images):
            raise ValueError(
                f"`val_count` must leave images to train on. Received: {self.val_count}"
            )
        for part in ("train", "test"):
            images = np.asanyarray(getattr(self, f"{part}_images"))
            labels = np.asanyarray(getattr(self, f"{part}_labels"))
            _check(part, images, labels)
            if images.shape[1:] != np.shape(self.train_images)[1:]:
                raise ValueError(
                    f"`{part}_images` must be of the same size as `train_images`. "
                    f"Received: {images.shape} and {np.shape(self.train_images)}"
                )
            if labels.min() < 0 or labels.max() > last:
                raise ValueError(
                    f"`{part}_labels` must be numbers of 0 to {last}: for each image an index into "
                    f"`class_names`. Received: from {labels.min()} to {labels.max()}"
                )
            object.__setattr__(self, f"{part}_images", images)
            object.__setattr__(self, f"{part}_labels", labels)

    def check_classes(self, names: Sequence[str]) -> None:
        """Raise UserError where a net's classes, in its order, are not those of this data set.

        The names `class 0`, `class 1`, ... of a net whose classes nobody has named stand for any: a warning
        says so.
        """
        expected = self.class_names
        unnamed = all(name == f"class {k}" for k, name in enumerate(names))
        if len(names) != len(expected) or (tuple(names) != expected and not unnamed):
            raise UserError(
                f"the net's classes must be those of {self.name} ({len(expected)}: {expected[0]}, "
                f"{expected[1]}, ...). Received: {len(names)}: {names[0]}, {names[1]}, ...; name the "
                "net's data set with `dataset`"
            )
        if unnamed and tuple(names) != expected:
            console.print_error(
                f"warning: the net's classes have no names; they are taken for those of {self.name}, in this "
                f"order: {expected[0]}, {expected[1]}, ...; a labels.txt beside the net can name them"
            )

    @property
    def is_own(self) -> bool:
        """Whether it is the user's own, none of the data sets that this package knows by name."""
        return self.name not in NORMALIZATION

    @property
    def mean(self) -> tuple[float, ...]:
        """Channel means of the training images, 0..255."""
        return self._normalization[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Channel standard deviations of the training images, in pixel units, at least 1."""
        return self._normalization[1]

    @functools.cached_property
    def _normalization(self) -> Any:
        if not self.is_own:
            return NORMALIZATION[self.name]
        images = self.train_images[: len(self.train_images) - self.val_count]
        channels = np.moveaxis(images, -1, 0)
        shares = [np.bincount(c.ravel(), minlength=256) / c.size for c in channels]
        values = np.arange(256)
        means = tuple(float(share @ values) for share in shares)
        variances = [share @ (values - m) ** 2 for share, m in zip(shares, means, strict=True)]
        return means, tuple(max(1.0, float(v) ** 0.5) for v in variances)

    @functools.cached_property
    def content_hash(self) -> str | None:
        """SHA-256 of the user's own images, labels and class names; None for a data set known by name."""
        if not self.is_own:
            return None
        content = hashlib.sha256(repr((self.class_names, self.val_count)).encode())
        for part in ("train", "test"):
            images = getattr(self, f"{part}_images")
            content.update(repr(images.shape).encode())
            content.update(np.ascontiguousarray(images).data)
            content.update(getattr(self, f"{part}_labels").astype("<i4").tobytes())
        return content.hexdigest()

    def split(self, val_size: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the images to train on and to validate with; `val_size` None is the default.

        The default for the user's own images is val/, or else a tenth of each class. Raises UserError if
        `val_size` leaves no image to train on, or is given where there is a val/.
        """
        size = len(self.train_labels)
        if not self.is_own:
            return stream.split(size, VAL_SIZE if val_size is None else val_size, seed)
        if not self.val_count:
            count = size // 10 if val_size is None else val_size
            return stream.stratified_split(self.train_labels, count, seed)
        if val_size is not None:
            raise UserError(f"`val_size` must be left out: {self.name} has a val/")
        train, val = np.split(np.arange(size), [size - self.val_count])
        return train, val

    @classmethod
    def from_folder(
        cls, path: str | os.PathLike[str], image_size: int | None = None, unreadable: str = "refuse"
    ) -> Self:
        """Read your own images.

        Args:
            path: a folder with one subfolder per class, named after it, or with `train/` and `test/` or
                `val/` that hold these. Without test/, val/ is the test set; without both, a fixed fifth of
                each class is. Or an `.npz` file with x_train, y_train, x_test, y_test (and class_names).
            image_size: every image of a folder is resized to this height and width; default 32. Those of an
                `.npz` file are not resized and must have this size.
            unreadable: what to do about files that cannot be read as images: `"refuse"` or `"skip"`. They
                are named in either case.

        Raises:
            TypeError, ValueError: for another `image_size` or `unreadable`.
            UserError: for images, folders or arrays that do not fit; the message names them.
        """
        if image_size is not None and not 1 <= integer("image_size", image_size) <= 10_000:
            raise ValueError(f"`image_size` must be 1 to 10000. Received: {image_size!r}")
        if unreadable not in ("refuse", "skip"):
            raise ValueError(f"`unreadable` must be refuse or skip. Received: {unreadable!r}")
        root = Path(os.path.abspath(os.path.expanduser(path)))
        if root.is_dir():
            arrays = folders.read_folder(root, image_size or folders.IMAGE_SIZE, unreadable)
        elif root.suffix == ".npz" and root.is_file():
            arrays = folders.read_npz(root, image_size)
        else:
            raise UserError(
                f"`dataset` must be one of {', '.join(NORMALIZATION)}, a folder with one subfolder per "
                f"class, or an .npz file. Received: {root}, which is none of these"
            )
        try:
            return cls.from_arrays(**arrays, name=root.name, data_dir=str(root.parent))
        except (ValueError, TypeError, IndexError) as error:
            raise UserError(f"{root}: {str(error).replace('`', '')}") from None

    @classmethod
    def from_arrays(
        cls,
        train_images: Any,
        train_labels: Any,
        test_images: Any = None,
        test_labels: Any = None,
        class_names: Sequence[str] | None = None,
        name: str = "images",
        val_count: int = 0,
        data_dir: str | None = None,
    ) -> Self:
        """A data set of your own images, in arrays.

        Args:
            train_images, test_images: uint8 `(N, height, width, 3)`; grey ones, `(N, height, width)` or
                `(N, height, width, 1)`, become RGB. Without test images, a fixed fifth of each class is
                the test set.
            train_labels, test_labels: integers from 0 on, `(N,)` or `(N, 1)`.
            class_names: in label order; default `"0"`, `"1"`, ...
            name: of the data set, in folders and reports.
            val_count: how many images at the end of `train_images` are for validation, where there are test
                images; 0 takes a tenth.
            data_dir: the folder that holds the data set, if it was read from one.

        Raises:
            ValueError: for arrays of another kind, a class without training images, one class alone, or the
                name of another data set.
        """
        if name in NORMALIZATION or not name or "/" in name:
            raise ValueError(
                f"`name` must have no slash and be none of {', '.join(NORMALIZATION)}. Received: {name}"
            )
        if test_images is None and test_labels is not None:
            raise ValueError(
                "`test_labels` must come with `test_images`. Received: the labels alone"
            )
        images, labels = _as_arrays("train", train_images, train_labels)
        if class_names is None:
            if labels.max() >= len(labels):
                raise ValueError(
                    "labels must be 0, 1, ... without gaps. "
                    f"Received: {labels.max()} as the largest of {len(labels)}"
                )
            class_names = [str(label) for label in range(int(labels.max()) + 1)]
        names = tuple(map(printable, np.ravel(class_names).astype(str).tolist()))
        if len(set(names)) < len(names) or "" in names:
            raise ValueError(f"class names must differ, and not be empty. Received: {names}")
        note = ""
        if test_images is not None:
            tests = _as_arrays("test", test_images, test_labels)
        else:
            note = "; a fifth of each class, the same for every seed, is the test set"
            train, test = stream.stratified_split(labels, max(1, len(labels) // 5), seed=0)
            tests, images, labels = (images[test], labels[test]), images[train], labels[train]
            val_count = 0
        data = cls(name, names, images, labels, *tests, val_count, data_dir, note)
        counts = np.bincount(labels[: len(labels) - val_count], minlength=len(names))
        if len(names) < 2 or not counts.all() or images.shape[-1] != 3:
            empty = [name for name, count in zip(names, counts, strict=True) if not count]
            needed = (
                "two images, as one is for testing" if test_images is None else "a training image"
            )
            raise ValueError(
                "there must be RGB or grey images of two classes or more, labelled from 0 on, each with at "
                f"least {needed}. "
                f"Received: {images.shape[-1]} channels, {len(names)} classes; without training images: "
                f"{empty}"
            )
        return data


def _check(part: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Raise ValueError where images or their labels are of another type or shape."""
    kind = images.dtype.name
    if kind != "uint8" or images.ndim != 4 or not images.size:
        hint = "; (255 * images).round().astype('uint8') makes pixels of 0 to 1"
        raise ValueError(
            f"`{part}_images` must be a uint8 array (N, height, width, channels), at least one. "
            f"Received: {kind} {images.shape}{hint if kind.startswith('float') else ''}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"`{part}_labels` must be an integer array ({len(images)},), one label per image. "
            f"Received: {labels.dtype} {labels.shape}"
        )


def _as_arrays(part: str, images: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Checked arrays: grey images become RGB; labels `(N, 1)` become `(N,)`."""
    try:
        images, labels = np.asarray(images), np.asarray(labels)
    except ValueError as error:  # of a list whose images differ in size
        raise ValueError(f"`{part}_images` and labels must be arrays: {error}") from None
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[-1:] == (1,):
        images = np.repeat(images, 3, axis=-1)
    labels = labels[:, 0] if labels.shape[1:] == (1,) else labels
    _check(part, images, labels)
    return images, labels
