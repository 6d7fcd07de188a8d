"""`keras_resnet.evaluate`: numbers against ones computed by hand, what it takes, what it refuses."""

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

IMAGES = np.zeros((4, 32, 32, 3), np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None, None]


def fake(probabilities, names=("a", "b", "c")):
    """A Classifier that returns `probabilities[k]` for an image whose first pixel is k."""
    table = np.array(probabilities, np.float32)
    return Classifier(Path("x"), "onnx", (32, 32), names, lambda x: table[x[:, 0, 0, 0]])


def test_numbers_by_hand():
    classifier = fake([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.5, 0.25], [1, 0, 0]])
    result = keras_resnet.evaluate(classifier, IMAGES, np.array([0, 1, 2, 2]))
    assert result.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    assert (result.images, result.wrong, result.error) == (4, 2, 50.0)
    expected = -(np.log(0.5) + np.log(0.8) + np.log(0.25) + np.log(1e-7)) / 4
    assert result.loss == pytest.approx(expected, rel=1e-5)
    assert result.images_per_second > 0
    table = error_table(result, classifier.class_names)
    assert "c           2       2   100.00  a (1)" in table
    assert "most frequent confusions:\n  c taken for a: 1\n  c taken for b: 1\n\n" in table


def test_images_and_labels_that_do_not_fit():
    for images, labels, message in (
        (IMAGES, [0, 1, 3, 0], "`labels` must be 0 to 2. Received: 0 to 3"),
        (IMAGES, np.zeros((4, 1), int), r"labels int64 \(4, 1\)"),
        (IMAGES.astype(float), [0] * 4, "images float64"),
        (IMAGES[:, :16], [0] * 4, r"each \(32, 32, 3\).* images uint8 \(4, 16, 32, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_resnet.evaluate(fake(np.eye(3)[[0, 1, 2, 0]]), images, labels)
    for images in (IMAGES[:, :16], IMAGES[..., :1]):  # Keras would take both
        with pytest.raises(ValueError, match=r"each \(32, 32, 3\)"):
            keras_resnet.evaluate(keras_resnet.resnet(8), images, [0] * 4)


def test_what_may_be_evaluated(tmp_path):
    """A Keras model, its path and any function, of probabilities or logits; labels in a list."""
    net = make_net()
    logits = keras.Model(net.input, net.get_layer("head_dense").output)
    images = random_images(300, 32, 32)
    labels = np.random.default_rng(0).integers(0, 10, 300)
    done = []
    expected = keras_resnet.evaluate(net, images, labels, done.append)
    assert done == [256, 44]
    net.save(tmp_path / "net.keras")
    for model in (
        logits,
        lambda x: net.predict_on_batch(x),
        tmp_path / "net.keras",
        str(tmp_path / "net.keras"),
    ):
        result = keras_resnet.evaluate(model, images, labels.tolist())
        np.testing.assert_array_equal(result.confusion, expected.confusion)
        assert result.loss == pytest.approx(expected.loss, rel=1e-5)
    loss, error = loss_and_error(logits.predict_on_batch(images), labels)
    assert (loss, error) == (pytest.approx(expected.loss, rel=1e-5), pytest.approx(expected.error))


def test_other_models_are_a_type_error():
    with pytest.raises(TypeError, match="`model` must be a Classifier, .*Received: 3"):
        keras_resnet.evaluate(3, IMAGES, [0] * 4)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.ones((3, 10)), r"logits \(4, classes\). Received: ndarray \(3, 10\)"),
        ({"a": np.ones((4, 10)), "b": np.ones((4, 3))}, r"logits \(4, classes\). Received: dict"),
        (np.full((4, 10), np.nan), "not finite"),
    ],
)
def test_outputs_that_are_refused(outputs, message):
    with pytest.raises(UserError, match=message):
        keras_resnet.evaluate(lambda x: outputs, IMAGES, [0] * 4)
