"""`keras_resnet.evaluate`: numbers against ones computed by hand, what it takes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.inference.classifier import Classifier
from keras_resnet.inference.confusion import error_table
from keras_resnet.inference.evaluate import loss_and_error
from tests.helpers import make_net, random_images


def fake(probabilities, names=("a", "b", "c")):
    """A Classifier that returns `probabilities[k]` for an image whose first pixel is k."""
    table = np.array(probabilities, np.float32)
    return Classifier(Path("x"), "onnx", (32, 32), names, lambda x: table[x[:, 0, 0, 0]])


def numbered(count):
    return (
        np.zeros((count, 32, 32, 3), np.uint8)
        + np.arange(count, dtype=np.uint8)[:, None, None, None]
    )


def test_numbers_by_hand():
    classifier = fake([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.5, 0.25], [1, 0, 0]])
    result = keras_resnet.evaluate(classifier, numbered(4), np.array([0, 1, 2, 2]))
    assert result.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    assert (result.images, result.wrong, result.error) == (4, 2, 50.0)
    expected = -(np.log(0.5) + np.log(0.8) + np.log(0.25) + np.log(1e-7)) / 4
    assert result.loss == pytest.approx(expected, rel=1e-5)
    assert result.images_per_second > 0
    table = error_table(result, classifier.class_names)
    assert "c           2       2   100.00  a (1)" in table


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3, 0], "`labels` must be 0 to 2. Received: 3"),
        ([0, 1, -1, 0], "`labels` must be 0 or more. Received: -1"),
        ([0, 1], r"shape \(4,\). Received: int64 array of shape \(2,\)"),
        (np.zeros((4, 1), int), r"Received: int64 array of shape \(4, 1\)"),
        ([True] * 4, "must be integers.*Received: bool"),
        ([0.0] * 4, "must be integers.*Received: float64"),
        ([], "must be integers"),
    ],
    ids=["above", "below", "count", "column", "bool", "float", "empty"],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(ValueError, match=message):
        keras_resnet.evaluate(fake(np.eye(3)[[0, 1, 2, 0]]), numbered(4), labels)


@pytest.mark.parametrize(
    "images",
    [numbered(0), numbered(4).astype(float), numbered(4)[0], [[1, 2]]],
    ids=["none", "float", "one", "list"],
)
def test_images_that_do_not_fit(images):
    with pytest.raises(ValueError, match="`images` must be one or more, a uint8 array"):
        keras_resnet.evaluate(fake(np.eye(3)), images, [0] * len(images))


def test_images_of_another_size():
    with pytest.raises(ValueError, match=r"must be of \(32, 32\) pixels. Received: \(16, 32\)"):
        keras_resnet.evaluate(fake(np.eye(3)), numbered(4)[:, :16], [0] * 4)


def test_what_may_be_evaluated():
    """A classifier, a Keras model, any function; of logits too; a list of labels."""
    net = make_net()
    logits = keras.Model(net.input, net.get_layer("head_dense").output)
    images = random_images(300, 32, 32)
    labels = np.random.default_rng(0).integers(0, 10, 300)
    done = []
    expected = keras_resnet.evaluate(net, images, labels, done.append)
    assert done == [256, 44]
    for model in (logits, net.predict_on_batch, lambda x: logits.predict_on_batch(x)):
        result = keras_resnet.evaluate(model, images, labels.tolist())
        np.testing.assert_array_equal(result.confusion, expected.confusion)
        assert result.loss == pytest.approx(expected.loss, rel=1e-5)
    loss, error = loss_and_error(logits.predict_on_batch(images), labels)
    assert (loss, error) == (pytest.approx(expected.loss, rel=1e-5), pytest.approx(expected.error))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.ones((3, 10)), r"Received: shape \(3, 10\) for 4 images"),
        (np.ones((4, 1)), r"Received: shape \(4, 1\)"),
        (np.full((4, 10), np.nan), "not finite"),
    ],
)
def test_outputs_that_are_refused(outputs, message):
    with pytest.raises(UserError, match=message):
        keras_resnet.evaluate(lambda x: outputs, numbered(4), [0] * 4)


def test_real_images(cifar10):
    """A net that always says "cat" is wrong nine times in ten."""
    classifier = fake(np.tile(np.eye(10)[3], (256, 1)), cifar10.class_names)
    result = keras_resnet.evaluate(classifier, cifar10.test_images, cifar10.test_labels)
    assert result.error == 90.0 and result.confusion[:, 3].tolist() == [1000] * 10
