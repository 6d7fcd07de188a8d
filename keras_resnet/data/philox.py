"""Random integers as a function of (seed, step) alone, without a state: Philox 4x32-10 in NumPy.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", keyed as TensorFlow's
`tf.random.stateless_uniform` keys it: version 0.1.0 drew with that function, and its runs keep their
bits. In NumPy, the numbers are the same on every backend and on any number of devices.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 10
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)  # added to the key after each round
_SCRAMBLE = np.uint32(0x3EC8F720), np.uint32(0x02461E29)  # TensorFlow's key for mixing a seed
_SEEDS = 2**31 - 2  # Keras takes a seed modulo this before TensorFlow sees it
_LOW = np.uint64(0xFFFFFFFF)


def integers(seed: int, first: int, steps: int, count: int) -> np.ndarray:
    """`count` numbers for each of `steps` steps from step `first` (from 0) on: uint32 `(steps, count)`."""
    key, high = _keys(seed, np.arange(first, first + steps))
    low = np.arange(-(-count // 4), dtype=np.uint32)
    shape = (steps, len(low))
    counter = [
        np.broadcast_to(part, shape)
        for part in (low, np.uint32(0), high[0][:, None], high[1][:, None])
    ]
    numbers = np.stack(_philox(counter, (key[0][:, None], key[1][:, None])), axis=-1)
    return numbers.reshape(steps, -1)[:, :count]


def _keys(seed: int, steps: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Key, and high half of the counter, of `stateless_uniform` with the seeds `(seed, step)`."""
    step = (steps % _SEEDS).astype(np.uint32)
    zero = np.zeros_like(step)
    mixed = _philox([np.full_like(step, seed % _SEEDS), zero, step, zero], _SCRAMBLE)
    return mixed[:2], mixed[2:]


def _philox(
    counter: list[np.ndarray], key: tuple[np.ndarray | np.uint32, np.ndarray | np.uint32]
) -> list[np.ndarray]:
    """Four random uint32 for each counter of four uint32."""
    a, b, c, d = counter
    left, right = (np.atleast_1d(part) for part in key)  # scalars would warn of overflow
    for _ in range(_ROUNDS):
        first = a.astype(np.uint64) * _MULTIPLIERS[0]
        second = c.astype(np.uint64) * _MULTIPLIERS[1]
        high, low = second >> np.uint64(32), second & _LOW
        a, b = high.astype(np.uint32) ^ b ^ left, low.astype(np.uint32)
        high, low = first >> np.uint64(32), first & _LOW
        c, d = high.astype(np.uint32) ^ d ^ right, low.astype(np.uint32)
        left, right = left + _WEYL[0], right + _WEYL[1]
    return [a, b, c, d]
