"""The split and the order of the images: pure functions of integers, from any update on."""

import functools

import numpy as np

from keras_resnet.errors import UserError

# Salts that keep the random streams of one seed apart.
_SPLIT, _ORDER, _STRATA = 1, 2, 4  # synthetic.py has 3; augmentation.py has 1, too, in another form


def split(size: int, val_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and the validation images: a random split of `range(size)` by seed."""
    return _split_off(np.random.default_rng([seed, _SPLIT]).permutation(size), val_size)


def stratified_split(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split off `count` images, drawn by seed, in which each class has its share.

    Returns the indices of the other images, one of each class if so many are left, and those of the `count`.
    """
    random = np.random.default_rng([seed, _STRATA])
    place = np.empty(len(labels))  # 0 to 1, evenly within each class
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + random.random()) / len(members)
        place[members[-1]] = 1
    return _split_off(np.argsort(place, kind="stable"), count)


def _split_off(order: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The others and the first `count`, each sorted. Raises UserError where there are no others."""
    if not 0 <= count < len(order):
        raise UserError(
            f"`val_size` must be 0 or more and below the {len(order)} training images. Received: {count}"
        )
    return np.sort(order[count:]), np.sort(order[:count])


def batch_indices(seed: int, step: int, size: int, batch_size: int) -> np.ndarray:
    """Indices (int32, `(batch_size,)`, each below `size`) of the images of update `step` (from 0).

    The stream is one random permutation of `range(size)` after another, cut into batches; a batch may
    straddle permutations, so every image is seen equally often and all batches are full. A pure
    function of its arguments.
    """
    start, end = step * batch_size, (step + 1) * batch_size
    epochs = range(start // size, (end - 1) // size + 1)
    order = np.concatenate([_permutation(seed, epoch, size) for epoch in epochs])
    return order[start - epochs[0] * size : end - epochs[0] * size]


@functools.lru_cache(maxsize=2)  # two epochs meet in one batch; more are seldom needed
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(size).astype(np.int32)
