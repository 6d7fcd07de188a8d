"""Crops and flips: their numbers as functions of (seed, step), and the layer, seen from its outputs."""

from __future__ import annotations

import numpy as np
import pytest

from keras_resnet.data import augmentation
from keras_resnet.data.augmentation import RandomPadCrop


@pytest.mark.parametrize("seed", [0, 1, 12_345, 2**31 - 1])
def test_the_numbers_are_those_of_tensorflow(seed: int) -> None:
    """Version 0.1.0 drew them with `keras.random.randint`, whose state was (crop seed, update)."""
    import tensorflow as tf

    crop_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]) % (2**31 - 2)
    for first, batch_size in ((0, 128), (63_999, 50)):
        ours = augmentation.draws(seed, first, 2, batch_size)
        for step in range(2):
            theirs = tf.random.stateless_uniform(
                (batch_size, 3), (crop_seed, first + step), 0, 162, tf.int32
            )
            np.testing.assert_array_equal(ours[step], theirs)


def test_any_step_can_be_started_from() -> None:
    whole = augmentation.draws(3, 0, 40, 128)
    np.testing.assert_array_equal(whole[17:29], augmentation.draws(3, 17, 12, 128))
    assert whole.dtype == np.int32 and whole.min() == 0 and whole.max() == 161
    assert not np.array_equal(whole, augmentation.draws(4, 0, 40, 128))


def test_places_and_flips_are_uniform_and_independent() -> None:
    draw = augmentation.draws(0, 0, 400, 128).reshape(-1, 3)
    rows, columns, flips = draw[:, 0] % 9, draw[:, 1] % 9, draw[:, 2] % 2
    counts = np.bincount((rows * 9 + columns) * 2 + flips, minlength=162)
    expected = len(draw) / 162
    # Chi-square with 161 degrees of freedom: 221.5 is its 99.9 % quantile.
    assert ((counts - expected) ** 2 / expected).sum() < 221.5


def coordinates(n: int) -> np.ndarray:
    """Images whose pixel (row, column) is the colour (row + 1, column + 1, 7)."""
    row, column = np.mgrid[1:33, 1:33].astype("uint8")
    image = np.stack([row, column, np.full_like(row, 7)], axis=-1)
    return np.broadcast_to(image, (n, 32, 32, 3))


def drawn(layer: RandomPadCrop, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crop offsets (rows, columns; 0..8) and flips of one call, read from the pixels."""
    out = layer(coordinates(n), training=True).numpy()
    flips = out[:, 16, 16, 1] > out[:, 16, 17, 1]
    columns = np.where(flips, out[:, 16, 15, 1], out[:, 16, 16, 1])
    return out[:, 16, 16, 0] - 17 + 4, columns - 17 + 4, flips


def test_crop_is_a_crop_of_the_padded_image() -> None:
    layer = RandomPadCrop(4, fill=(10.5, 20.5, 30.5), flip=True, seed=3)
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    state = layer.seed_generator.state.numpy()
    rows, columns, flips = drawn(layer, 40)
    layer.seed_generator.state.assign(state)
    out = layer(images, training=True).numpy()
    padded = np.empty((40, 40, 40, 3), np.float32)
    padded[:] = (10.5, 20.5, 30.5)
    padded[:, 4:36, 4:36] = images
    for i in range(40):
        y, x = int(rows[i]), int(columns[i])
        crop = padded[i, y : y + 32, x : x + 32]
        np.testing.assert_array_equal(out[i], crop[:, ::-1] if flips[i] else crop)
    assert flips.any() and not flips.all()


def test_offsets_and_flips_are_uniform_and_independent() -> None:
    layer = RandomPadCrop(4, flip=True, seed=0)
    parts = [drawn(layer, 1000) for _ in range(24)]
    rows, columns, flips = (np.concatenate(part) for part in zip(*parts, strict=True))
    n = len(rows)
    counts = np.bincount((rows * 9 + columns).astype(int), minlength=81)
    assert len(counts) == 81 and counts.min() > 0
    # Chi-square with 80 degrees of freedom: 124.8 is its 99.9 % quantile.
    assert ((counts - n / 81) ** 2 / (n / 81)).sum() < 124.8
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
    series = [rows, columns, flips.astype(float)]
    for a in series:  # no series says anything about another, nor about the next image's
        for b in series:
            lagged = np.corrcoef(a[:-1], b[1:])[0, 1]
            same = 0 if a is b else np.corrcoef(a, b)[0, 1]
            assert abs(lagged) < 4 / np.sqrt(n) and abs(same) < 4 / np.sqrt(n)


def test_flip_is_off_by_default() -> None:
    assert not drawn(RandomPadCrop(4, seed=1), 200)[2].any()


def test_augmentation_is_a_function_of_seed_and_call() -> None:
    images = coordinates(16)
    first, second = RandomPadCrop(seed=5), RandomPadCrop(seed=5)
    calls = [first(images, training=True).numpy() for _ in range(4)]
    assert not np.array_equal(calls[0], calls[1])
    second.seed_generator.state.assign([5, 3])
    np.testing.assert_array_equal(second(images, training=True), calls[3])
    assert not np.array_equal(RandomPadCrop(seed=6)(images, training=True), calls[0])


def test_validation_is_not_augmented() -> None:
    images = coordinates(4)
    np.testing.assert_array_equal(RandomPadCrop(seed=0)(images, training=False), images)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"padding": -1}, ValueError),
        ({"padding": 1.5}, TypeError),
        ({"padding": float("inf")}, TypeError),
        ({"fill": (float("nan"), 0.0, 0.0)}, ValueError),
    ],
)
def test_random_pad_crop_rejects(arguments: dict, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"`{next(iter(arguments))}` must be"):
        RandomPadCrop(**arguments)


def test_random_pad_crop_rejects_fill_of_other_size() -> None:
    with pytest.raises(ValueError, match="one number per channel"):
        RandomPadCrop(fill=(1.0,))(coordinates(1))
