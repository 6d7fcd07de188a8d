"""Random integers as a function of (seed, step) alone, without a state: Philox 4x32-10 in NumPy.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", keyed as TensorFlow's
`tf.random.stateless_uniform` keys it: version 0.1.0 drew with that function, and its runs keep their
bits. In NumPy, the numbers are the same on every backend and on any number of devices.
"""

from collections.abc import Iterable, Sequence

import numpy as np

_ROUNDS = 10
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)  # added to the key after each round
_SCRAMBLE = np.array([[0x3EC8F720], [0x02461E29]], np.uint32)  # TensorFlow's key for mixing a seed
_SEEDS = 2**31 - 2  # Keras takes a seed modulo this before TensorFlow sees it
_32, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def integers(seed: int, first: int, steps: int, count: int) -> np.ndarray:
    """`count` numbers for each of `steps` steps, the first of them `first`: uint32 `(steps, count)`."""
    step = (np.arange(first, first + steps) % _SEEDS).astype(np.uint32)[:, None]
    zero = np.zeros_like(step)
    # Key, and high half of the counter, of the seeds (seed, step).
    *key, c, d = _philox([np.full_like(step, seed % _SEEDS), zero, step, zero], _SCRAMBLE)
    low = np.arange(-(-count // 4), dtype=np.uint32)[None]
    counter = list(np.broadcast_arrays(low, np.uint32(0), c, d))
    return np.stack(_philox(counter, key), axis=-1).reshape(steps, -1)[:, :count]


def _philox(counter: Sequence[np.ndarray], key: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Four random uint32 for each counter of four uint32."""
    a, b, c, d = counter
    left, right = key
    for _ in range(_ROUNDS):
        first = a.astype(np.uint64) * _MULTIPLIERS[0]
        second = c.astype(np.uint64) * _MULTIPLIERS[1]
        a, b = (second >> _32).astype(np.uint32) ^ b ^ left, (second & _LOW).astype(np.uint32)
        c, d = (first >> _32).astype(np.uint32) ^ d ^ right, (first & _LOW).astype(np.uint32)
        left, right = left + _WEYL[0], right + _WEYL[1]
    return [a, b, c, d]
