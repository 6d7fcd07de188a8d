"""Crops and flips: their numbers as functions of (seed, step), and the layer, seen from its outputs."""

import numpy as np
import pytest

from keras_resnet.data import augmentation
from keras_resnet.data.augmentation import RandomPadCrop


@pytest.mark.parametrize("seed", [0, 12_345, 2**31 - 1])
def test_the_numbers_are_those_of_tensorflow(seed):
    """Version 0.1.0 drew them with `keras.random.randint`, whose state was (crop seed, update)."""
    import tensorflow as tf

    crop_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]) % (2**31 - 2)
    for first, batch_size in ((0, 128), (63_999, 50)):
        ours = augmentation.draw_crops(seed, first, 2, batch_size, 4)
        for step in range(2):
            theirs = tf.random.stateless_uniform(
                (batch_size, 3), (crop_seed, first + step), 0, 162, tf.int32
            )
            np.testing.assert_array_equal(ours[step], theirs)


def test_any_step_can_be_started_from():
    whole = augmentation.draw_crops(3, 0, 40, 128, 4)
    np.testing.assert_array_equal(whole[17:29], augmentation.draw_crops(3, 17, 12, 128, 4))
    assert whole.dtype == np.int32 and whole.min() == 0 and whole.max() == 161
    assert not np.array_equal(whole, augmentation.draw_crops(4, 0, 40, 128, 4))


def test_places_and_flips_are_uniform_and_independent():
    draw = augmentation.draw_crops(0, 0, 400, 128, 4).reshape(-1, 3)
    rows, columns, flips = draw[:, 0] % 9, draw[:, 1] % 9, draw[:, 2] % 2
    counts = np.bincount((rows * 9 + columns) * 2 + flips, minlength=162)
    expected = len(draw) / 162
    # Chi-square with 161 degrees of freedom: 221.5 is its 99.9 % quantile.
    assert ((counts - expected) ** 2 / expected).sum() < 221.5


def images(n):
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("flip", [True, False])
def test_an_image_becomes_a_crop_of_the_padded_image(flip):
    layer = RandomPadCrop(4, fill=(10.5, 20.5, 30.5), flip=flip)
    draw = augmentation.draw_crops(3, 0, 1, 40, 4)[0]
    out = layer(images(40), draw=draw, training=True).numpy()
    padded = np.empty((40, 40, 40, 3), np.float32)
    padded[:] = (10.5, 20.5, 30.5)
    padded[:, 4:36, 4:36] = images(40)
    for i, (row, column, mirrored) in enumerate(draw):
        crop = padded[i, row % 9 : row % 9 + 32, column % 9 : column % 9 + 32]
        np.testing.assert_array_equal(out[i], crop[:, ::-1] if flip and mirrored % 2 else crop)


def test_what_the_layer_draws_is_a_function_of_seed_and_call():
    first, second = RandomPadCrop(seed=5), RandomPadCrop(seed=5)
    calls = [first(images(16), training=True).numpy() for _ in range(4)]
    assert not np.array_equal(calls[0], calls[1])
    second.seed_generator.state.assign([5, 3])
    np.testing.assert_array_equal(second(images(16), training=True), calls[3])
    np.testing.assert_array_equal(first(images(16), training=False), images(16))
