"""The layers, seen from their outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_resnet.data.augmentation import RandomPadCrop
from keras_resnet.nets.layers import BatchNormalization, ZeroPadShortcut


def test_zero_pad_shortcut_takes_even_pixels_or_the_largest_and_pads_at_the_end():
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype("float32")
    layer = ZeroPadShortcut(5, 2)
    out = layer(x).numpy()
    assert out.shape == layer.compute_output_shape(x.shape) == (2, 4, 3, 5)
    np.testing.assert_array_equal(out[..., :3], x[:, ::2, ::2])
    np.testing.assert_array_equal(out[..., 3:], 0)
    x = x[:, :6]
    out = ZeroPadShortcut(4, 2, pooling="max")(x).numpy()
    windows = x.reshape(2, 3, 2, 3, 2, 3).max(axis=(2, 4))
    np.testing.assert_array_equal(out, np.pad(windows, [(0, 0)] * 3 + [(0, 1)]))


def test_layers_survive_serialisation():
    for layer in (
        ZeroPadShortcut(8, 2, "max", name="a"),
        RandomPadCrop(3, (1.0, 2.0, 3.0), flip=True, seed=4, name="b"),
        BatchNormalization(momentum=0.9, epsilon=1e-5, name="c"),
    ):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert type(again) is type(layer) and again.get_config() == layer.get_config()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("mixed_bfloat16", 3e-2)])
def test_batch_normalization_equals_keras_layer(dtype, tolerance):
    """Outputs, gradients and running statistics; bfloat16 has 8 significant bits."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(2, 3, (16, 8, 8, 6)), "float32")
    upstream = tf.constant(rng.normal(size=x.shape), "float32")
    gamma, beta = rng.uniform(0.5, 2, 6), rng.normal(size=6)
    results = []
    for kind, policy in ((BatchNormalization, dtype), (keras.layers.BatchNormalization, "float32")):
        layer = kind(momentum=0.9, epsilon=1e-5, dtype=policy)
        layer.build(x.shape)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.cast(y, "float32") * upstream)
        gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
        results.append((layer, y, gradients))
    (ours, y, gradients), (theirs, y0, gradients0) = results
    assert y.dtype == ("bfloat16" if dtype == "mixed_bfloat16" else "float32")
    np.testing.assert_allclose(tf.cast(y, "float32"), y0, atol=4 * tolerance)
    for g, g0 in zip(gradients, gradients0, strict=True):
        scale = float(tf.reduce_max(tf.abs(g0)))
        np.testing.assert_allclose(tf.cast(g, "float32"), g0, atol=4 * tolerance * scale)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, atol=tolerance)
    n = 16 * 8 * 8
    unbiased = (theirs.moving_variance.numpy() - 0.9) * n / (n - 1) + 0.9
    np.testing.assert_allclose(ours.moving_variance, unbiased, rtol=tolerance)
    theirs.set_weights(ours.get_weights())
    inference = tf.cast(ours(x, training=False), "float32")
    np.testing.assert_allclose(inference, theirs(x, training=False), atol=8 * tolerance)
