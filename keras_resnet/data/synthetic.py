"""The synthetic data set: ten kinds of shapes, drawn from a seed. Needs no data on disk."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_resnet.data.constants import SYNTHETIC_CLASSES
from keras_resnet.data.dataset import Dataset

SYNTHETIC_SIZES = (50_000, 10_000)
_DRAW = 3  # keeps its random stream apart from those of stream.py


def synthetic(sizes: tuple[int, int] | None = None, seed: int = 0) -> Dataset:
    """Ten kinds of shapes, drawn: random place, size, angle, colours and noise. Nothing is stored.

    Colours are random on both sides of the edge, so that a linear classifier on the pixels sees next
    to nothing while a small convolutional net learns the shapes in a few hundred updates.
    """
    train, test = sizes or SYNTHETIC_SIZES
    count = train + test
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
    parts = images[:train], labels[:train], images[train:], labels[train:]
    return Dataset("synthetic", SYNTHETIC_CLASSES, *parts)


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
    # Two colours that differ clearly, and a gradient over both.
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
    return {
        "disc": lambda: radius2 < 0.8,
        "ring": lambda: (radius2 < 0.9) & (radius2 > 0.3),
        "square": lambda: box < 0.8,
        "frame": lambda: (box < 0.9) & (box > 0.5),
        "triangle": lambda: (v > -0.8) & (v < 0.8) & (abs(u) < (v + 0.8) * 0.6),
        "cross": lambda: (box < 1) & (np.minimum(abs(u), abs(v)) < 0.28),
        "crescent": lambda: (radius2 < 0.9) & ((u - 0.5) ** 2 + v * v > 0.6),
        "bars": lambda: (box < 1) & (np.floor(v * 2.5 + 0.5) % 2 == 0),
        "columns": lambda: (box < 1) & (np.floor(u * 2.5 + 0.5) % 2 == 0),
        "checkers": lambda: (box < 1) & ((np.floor(u * 2) + np.floor(v * 2)) % 2 == 0),
    }[shape]()
