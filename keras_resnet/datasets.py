"""Data sets in memory, the split, and the stream of batches.

`cifar10` and `cifar100` come through tensorflow_datasets; `synthetic` is drawn from a seed, for machines
without data. Split and stream are pure functions of integers, so any step can be started from.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.cli import UserError
from keras_resnet.models import CIFAR10_MEAN, CIFAR10_STD

SYNTHETIC_SIZES = (50_000, 10_000)
SYNTHETIC_CLASSES = (
    "disc", "ring", "square", "frame", "triangle", "cross", "crescent", "bars", "columns", "checkers",
)  # fmt: skip

# Channel means and standard deviations of the training images, in pixel units (0..255).
# tests/test_datasets.py computes them again from the images.
NORMALIZATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": (CIFAR10_MEAN, CIFAR10_STD),
    "cifar100": ((129.3042, 124.0700, 112.4341), (68.1702, 65.3918, 70.4184)),
    "synthetic": ((126.75, 126.75, 126.75), (55.75, 55.75, 55.75)),
}


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


def folder_of(name: str, data_dir: str | None = None, recorded: str | None = None) -> Path:
    """The folder of tensorflow_datasets in which a data set is looked for.

    Args:
        name: the data set.
        data_dir: the folder the user names; it is taken.
        recorded: the folder that a run names: of the machine that trained it, so it counts only where
            it holds the data set. The default is `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
    """
    if data_dir:
        return Path(data_dir).expanduser()
    if recorded and (Path(recorded).expanduser() / name).is_dir():
        return Path(recorded).expanduser()
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Read a data set into memory.

    Args:
        name: `"cifar10"`, `"cifar100"` or `"synthetic"`.
        data_dir: folder of tensorflow_datasets; default `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
            A data set that is not there is downloaded to it.

    Raises:
        UserError: for an unknown name, or when the data set is not there and cannot be downloaded.
    """
    if name == "synthetic":
        return synthetic()
    if name not in NORMALIZATION:
        raise UserError(f"--dataset must be one of {', '.join(NORMALIZATION)}. Received: {name!r}")
    import tensorflow_datasets as tfds  # slow to import, and not needed for synthetic

    logging.getLogger("absl").setLevel(logging.ERROR)  # tfds warns of every folder it looks into
    network = True
    folder = folder_of(name, data_dir)
    try:
        builder = tfds.builder(name, data_dir=str(folder))
        if not builder.is_prepared() and (network := _reachable(builder.info.homepage)):
            print(f"{name} is not in {folder}: downloading it ...", flush=True)
            builder.download_and_prepare()
        # Files in their order, so that the same files give the same arrays.
        train, test = builder.as_dataset(
            split=["train", "test"], shuffle_files=False, as_supervised=True
        )
        (train_images, train_labels), (test_images, test_labels) = _arrays(train), _arrays(test)
    except Exception as error:  # tfds and its downloader raise many kinds
        reason = f"{type(error).__name__}: {error}"[:200] if network else "no network"
        raise UserError(
            f"{name} was not found in {folder} and could not be downloaded or read ({reason}). "
            f"Name the folder that holds {name}/ with --data-dir or TFDS_DATA_DIR, "
            "or use --dataset synthetic"
        ) from None
    return Dataset(
        name,
        tuple(builder.info.features["label"].names),
        train_images,
        train_labels.astype(np.int32),
        test_images,
        test_labels.astype(np.int32),
    )


def _reachable(url: str) -> bool:
    """Whether there is a network: one look, because tfds retries for minutes where there is none."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _arrays(examples: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a `tf.data.Dataset` of examples."""
    batches = list(examples.batch(1_000).as_numpy_iterator())
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def split(size: int, val_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and the validation images: a random split of `range(size)` by seed.

    Raises:
        UserError: if `val_size` leaves no image to train on.
    """
    if not 0 <= val_size < size:
        raise UserError(
            f"--val-size must be 0 or more and below the {size} training images. Received: {val_size}"
        )
    order = np.random.default_rng([seed, _SPLIT]).permutation(size)
    return np.sort(order[val_size:]), np.sort(order[:val_size])


def batch_indices(seed: int, step: int, size: int, batch_size: int) -> np.ndarray:
    """Indices (int32, `(batch_size,)`, each below `size`) of the images of update `step` (from 0).

    The stream is one random permutation of `range(size)` after another, cut into batches; a batch may
    straddle two permutations, so every image is seen equally often and all batches are full. A pure
    function of its arguments.
    """
    start = step * batch_size
    parts = []
    while (missing := batch_size - sum(map(len, parts))) > 0:
        epoch, offset = divmod(start, size)
        part = _permutation(seed, epoch, size)[offset : offset + missing]
        parts.append(part)
        start += len(part)
    return np.concatenate(parts)


# Salts that keep the random streams of one seed apart.
_SPLIT, _ORDER, _DRAW = 1, 2, 3
_last_permutation: dict[tuple[int, int, int], np.ndarray] = {}


def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    key = (seed, epoch, size)
    if key not in _last_permutation:
        permutation = np.random.default_rng([seed, _ORDER, epoch]).permutation(size)
        while len(_last_permutation) > 1:  # two epochs meet in one batch; more are never needed
            _last_permutation.pop(next(iter(_last_permutation)))
        _last_permutation[key] = permutation.astype(np.int32)
    return _last_permutation[key]


def synthetic(sizes: tuple[int, int] | None = None, seed: int = 0) -> Dataset:
    """Ten kinds of shapes, drawn: random place, size, angle, colours and noise. Nothing is stored.

    Colours are random on both sides of the edge, so that a linear classifier on the pixels sees next
    to nothing while a small convolutional net learns the shapes in a few hundred updates.
    """
    train, test = sizes or SYNTHETIC_SIZES
    images, labels = _draw(train + test, seed)
    return Dataset(
        "synthetic",
        SYNTHETIC_CLASSES,
        images[:train],
        labels[:train],
        images[train:],
        labels[train:],
    )


def _draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.random.default_rng([seed, _DRAW]).permutation(count).astype(np.int32) % 10
    images = np.empty((count, 32, 32, 3), np.uint8)

    def fill(job: tuple[int, int]) -> None:
        label, start = job
        members = np.flatnonzero(labels == label)[start : start + 500]
        rng = np.random.default_rng([seed, _DRAW, label, start])
        images[members] = _draw_class(label, len(members), rng)

    jobs = [(label, start) for label in range(10) for start in range(0, count // 10 + 1, 500)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, jobs))
    return images, labels


def _draw_class(label: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` images of one class, uint8 `(n, 32, 32, 3)`."""

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, (n, *shape)).astype(np.float32)

    axis = np.arange(32, dtype=np.float32)
    x = axis[None, None, :] - uniform(11, 20, 1, 1)
    y = axis[None, :, None] - uniform(11, 20, 1, 1)
    angle = uniform(-np.pi, np.pi, 1, 1) if label == 6 else uniform(-0.25, 0.25, 1, 1)
    size = uniform(6.5, 11, 1, 1)
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    u, v = x * cos + y * sin, y * cos - x * sin  # in units of the shape's size
    mask = _inside(SYNTHETIC_CLASSES[label], u, v)[..., None]
    # Two colours that differ clearly, each with a gradient of its own.
    back = uniform(40, 215, 1, 1, 3)
    step = uniform(45, 110, 1, 1, 3) * np.where(rng.random((n, 1, 1, 3)) < 0.5, -1, 1)
    front = np.where((back + step > 235) | (back + step < 20), back - step, back + step)
    shade = x[..., None] * uniform(-1.5, 1.5, 1, 1, 1) + y[..., None] * uniform(-1.5, 1.5, 1, 1, 1)
    noise = rng.integers(-32, 33, (n, 32, 32, 3), dtype=np.int8)
    image = np.where(mask, front.astype(np.float32), back) + shade + noise
    return np.clip(image, 0, 255).astype(np.uint8)


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which points belong to a shape of size 1 around the origin."""
    radius2, box = u * u + v * v, np.maximum(abs(u), abs(v))
    match shape:
        case "disc":
            return radius2 < 0.8
        case "ring":
            return (radius2 < 0.9) & (radius2 > 0.3)
        case "square":
            return box < 0.8
        case "frame":
            return (box < 0.9) & (box > 0.5)
        case "triangle":
            return (v > -0.8) & (v < 0.8) & (abs(u) < (v + 0.8) * 0.6)
        case "cross":
            return (box < 1) & (np.minimum(abs(u), abs(v)) < 0.28)
        case "crescent":
            return (radius2 < 0.9) & ((u - 0.5) ** 2 + v * v > 0.6)
        case "bars":
            return (box < 1) & (np.floor(v * 2.5 + 0.5) % 2 == 0)
        case "columns":
            return (box < 1) & (np.floor(u * 2.5 + 0.5) % 2 == 0)
        case "checkers":
            return (box < 1) & ((np.floor(u * 2) + np.floor(v * 2)) % 2 == 0)
    raise AssertionError(shape)
