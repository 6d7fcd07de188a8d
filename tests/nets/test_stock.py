"""The net that is saved: Keras's own layers alone, the same numbers."""

import keras
import numpy as np
import pytest

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


def test_other_models_are_left_as_they_are():
    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    assert stock(net) is net
    described = describe(net)
    assert (described["model"], described["depth"], described["num_classes"]) == (None, None, 2)
    assert recognize_dataset(net) is None
