"""The net that is saved: Keras's own layers alone, the same numbers."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_resnet
from keras_resnet.nets.describe import describe, recognize_dataset
from keras_resnet.nets.family import SHORTCUTS
from keras_resnet.nets.stock import copy_weights, stock
from tests import helpers
from tests.helpers import make_net, random_images


def logits_of(net, images):
    return helpers.logits_of(net).predict(images, verbose=0)


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_the_same_logits_from_layers_of_keras(shortcut):
    net = make_net(shortcut=shortcut)
    rebuilt = stock(net)
    for layer in rebuilt.layers:
        assert type(layer).__module__.startswith("keras.") and layer.dtype_policy.name == "float32"
    images = random_images(32, 32, 32)
    np.testing.assert_allclose(logits_of(rebuilt, images), logits_of(net, images), atol=1e-6)
    assert describe(rebuilt) == describe(net)
    assert describe(net)["shortcut"] == shortcut
    assert recognize_dataset(rebuilt) == recognize_dataset(net) == "cifar10"
    names = {layer.name for layer in net.layers}
    assert names <= {layer.name for layer in rebuilt.layers}
    trainable = [[v.shape for v in n.trainable_variables] for n in (net, rebuilt)]
    assert trainable[0] == trainable[1]
    assert stock(rebuilt) is rebuilt
    copy = keras_resnet.resnet(8, shortcut=shortcut, seed=1)
    copy_weights(rebuilt, copy)
    np.testing.assert_array_equal(copy.predict(images), net.predict(images))


def test_odd_sizes_plain_nets_and_mixed_precision():
    images = random_images(8, 31, 45)
    net = make_net(input_shape=(31, 45, 3))
    np.testing.assert_allclose(logits_of(stock(net), images), logits_of(net, images), atol=1e-6)
    mixed = make_net(input_shape=(31, 45, 3), dtype="mixed_bfloat16")
    copy_weights(net, mixed)
    np.testing.assert_allclose(logits_of(stock(mixed), images), logits_of(net, images), atol=1e-6)
    assert describe(stock(keras_resnet.plain(8)))["model"] == "plain"


def test_a_net_of_the_user_s_in_mixed_precision():
    """Functions instead of layers, a pooling that is used twice, layers inside others."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        image = keras.Input((8, 8, 3))
        x = layers.Conv2D(8, 3, padding="same")(image / 255.0)
        x = keras.ops.relu(x + layers.Conv2D(8, 3, padding="same")(x))[:, 1:]
        pool, gate = layers.GlobalAveragePooling2D(), layers.GlobalAveragePooling2D(keepdims=True)
        x = x * layers.Conv2D(8, 1, activation="sigmoid")(gate(x))
        body = keras.Sequential([layers.Conv2D(8, 3), layers.BatchNormalization()], name="body")
        rows = layers.TimeDistributed(layers.Dense(4))(layers.Reshape((7, 64))(x))
        ends = [pool(x), pool(body(x)), layers.Flatten()(rows)]
        logits = layers.Dense(5, dtype="float32")(keras.ops.concatenate(ends, axis=-1))
        net = keras.Model(image, logits)
    finally:
        keras.config.set_dtype_policy("float32")
    rebuilt = stock(net)
    assert "float16" not in rebuilt.to_json()
    images = random_images(8, 8, 8)
    expected = net.predict(images, verbose=0)
    found = rebuilt.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=0.05)
    for old, new in zip(net.get_weights(), rebuilt.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_other_models_are_left_as_they_are():
    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    assert stock(net) is net
    described = describe(net)
    assert (described["model"], described["depth"], described["num_classes"]) == (None, None, 2)
    assert recognize_dataset(net) is None
