"""Crops and flips as functions of (seed, step): TensorFlow's own numbers, uniform, from any step on."""

from __future__ import annotations

import numpy as np
import pytest

from keras_resnet.data import crops


@pytest.mark.parametrize("seed", [0, 1, 12_345, 2**31 - 1])
def test_the_numbers_are_those_of_tensorflow(seed: int) -> None:
    """Version 0.1.0 drew them with `keras.random.randint`, whose state was (crop seed, update)."""
    import tensorflow as tf

    crop_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]) % (2**31 - 2)
    for first, batch_size in ((0, 128), (63_999, 50)):
        ours = crops.draws(seed, first, 2, batch_size)
        for step in range(2):
            theirs = tf.random.stateless_uniform(
                (batch_size, 3), (crop_seed, first + step), 0, 162, tf.int32
            )
            np.testing.assert_array_equal(ours[step], theirs)


def test_any_step_can_be_started_from() -> None:
    whole = crops.draws(3, 0, 40, 128)
    np.testing.assert_array_equal(whole[17:29], crops.draws(3, 17, 12, 128))
    assert whole.dtype == np.int32 and whole.min() == 0 and whole.max() == 161
    assert not np.array_equal(whole, crops.draws(4, 0, 40, 128))


def test_places_and_flips_are_uniform_and_independent() -> None:
    draw = crops.draws(0, 0, 400, 128).reshape(-1, 3)
    rows, columns, flips = draw[:, 0] % 9, draw[:, 1] % 9, draw[:, 2] % 2
    counts = np.bincount((rows * 9 + columns) * 2 + flips, minlength=162)
    expected = len(draw) / 162
    # Chi-square with 161 degrees of freedom: 221.5 is its 99.9 % quantile.
    assert ((counts - expected) ** 2 / expected).sum() < 221.5
