"""Crops and flips: their numbers as functions of (seed, step), and the layer, seen from its outputs."""

import numpy as np
import pytest

from keras_resnet.data import augmentation
from keras_resnet.data.augmentation import RandomPadCrop
from tests.helpers import random_images


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


@pytest.mark.parametrize("flip", [True, False])
def test_an_image_becomes_a_crop_of_the_padded_image(flip):
    layer = RandomPadCrop(4, fill=(10.5, 20.5, 30.5), flip=flip)
    images = random_images(40, 32, 32)
    draw = augmentation.draw_crops(3, 0, 1, 40, 4)[0]
    out = layer(images, draw=draw, training=True).numpy()
    padded = np.empty((40, 40, 40, 3), np.float32)
    padded[:] = (10.5, 20.5, 30.5)
    padded[:, 4:36, 4:36] = images
    for i, (row, column, mirrored) in enumerate(draw):
        crop = padded[i, row % 9 : row % 9 + 32, column % 9 : column % 9 + 32]
        np.testing.assert_array_equal(out[i], crop[:, ::-1] if flip and mirrored % 2 else crop)


def test_what_the_layer_draws_is_a_function_of_seed_and_call():
    images = random_images(16, 32, 32)
    first, second = RandomPadCrop(seed=5), RandomPadCrop(seed=5)
    calls = [first(images, training=True).numpy() for _ in range(4)]
    assert not np.array_equal(calls[0], calls[1])
    second.seed_generator.state.assign([5, 3])
    np.testing.assert_array_equal(second(images, training=True), calls[3])
    np.testing.assert_array_equal(first(images, training=False), images)
