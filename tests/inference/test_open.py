"""Any classifier of RGB pixels is opened, whoever built it; what is none is refused in one line."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_resnet.errors import UserError
from keras_resnet.inference.classifier import Classifier
from keras_resnet.inference.open import load_keras
from tests.helpers import make_net, random_images

IMAGES = random_images(5, 24, 20)


def backbone() -> keras.Model:
    """Another architecture, with Dropout and layers inside a model."""
    image = keras.Input((24, 20, 3))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.SeparableConv2D(8, 3, strides=2, activation="swish")(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(image, layers.GlobalMaxPooling2D()(x))


HEADS = {
    "softmax": lambda: layers.Dense(4, activation="softmax"),
    "logits": lambda: layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(0, 5)),
}


def expected(net: keras.Model, head: str) -> np.ndarray:
    outputs = net.predict(IMAGES, verbose=0)
    return outputs if head == "softmax" else keras.ops.convert_to_numpy(keras.ops.softmax(outputs))


@pytest.mark.parametrize("form", ["functional", "sequential"])
@pytest.mark.parametrize("head", HEADS)
def test_any_keras_classifier(
    head: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body, top = backbone(), HEADS[head]()
    if form == "sequential":
        net = keras.Sequential([keras.Input((24, 20, 3)), body, top])
    else:
        net = keras.Model(body.input, {"score": top(body.output)})
        net = keras.Model(net.input, net.output["score"])
    net.save(tmp_path / "other.keras")
    classifier = Classifier.load(tmp_path / "other.keras")
    assert (classifier.image_size, len(classifier.class_names)) == ((24, 20), 4)
    for _ in range(2):
        np.testing.assert_allclose(classifier.predict(IMAGES), expected(net, head), atol=1e-5)
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == (head == "logits")
    assert all("other.keras returns logits; a softmax" in note for note in notes)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of tf2onnx
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["saved_model", "onnx"])
def test_what_keras_itself_exports(kind: str, head: str, tmp_path: Path) -> None:
    body = backbone()
    net = keras.Model(body.input, HEADS[head]()(body.output))
    net(IMAGES)  # ONNX wants a model that was called
    path = tmp_path / ("folder" if kind == "saved_model" else "other.onnx")
    net.export(path, format="tf_saved_model" if kind == "saved_model" else "onnx", verbose=False)
    classifier = Classifier.load(path)
    assert classifier.format == kind
    np.testing.assert_allclose(classifier.predict(IMAGES), expected(net, head), atol=1e-5)


def two_inputs() -> keras.Model:
    inputs = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    x = layers.Flatten()(layers.Add()(inputs))
    return keras.Model(inputs, layers.Dense(2)(x))


def with_shape(shape: tuple[int | None, ...], units: int = 2) -> keras.Model:
    image = keras.Input(shape)
    x = layers.GlobalMaxPooling2D()(image) if len(shape) == 3 else image
    return keras.Model(image, layers.Dense(units)(x))


@pytest.mark.parametrize(
    "net",
    [two_inputs, lambda: with_shape((8, 8, 1)), lambda: with_shape((None, None, 3)),
     lambda: with_shape((7,)), lambda: with_shape((8, 8, 3), 1)],
    ids=["two inputs", "gray", "any size", "vector", "one class"],
)  # fmt: skip
def test_what_is_no_classifier_of_rgb_images(net, tmp_path: Path) -> None:
    net().save(tmp_path / "other.keras")
    with pytest.raises(UserError, match=r"must take RGB images .*Received: inputs \(") as error:
        Classifier.load(tmp_path / "other.keras")
    assert "\n" not in str(error.value)


def test_probabilities_must_be_some(tmp_path: Path) -> None:
    image = keras.Input((24, 20, 3))
    x = layers.Dense(4, name="probabilities", bias_initializer="ones")(backbone()(image))
    keras.Model(image, x).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="must return probabilities, as its output is named"):
        Classifier.load(tmp_path / "other.keras").predict(IMAGES)


def test_safe_mode_stays_on(tmp_path: Path) -> None:
    """No code of a file runs."""
    image = keras.Input((24, 20, 3))
    x = layers.Lambda(lambda x: x + 1)(backbone()(image))
    keras.Model(image, layers.Softmax()(x)).save(tmp_path / "lambda.keras")
    with pytest.raises(
        UserError, match=r"lambda\.keras could not be opened as a Keras file"
    ) as error:
        Classifier.load(tmp_path / "lambda.keras")
    assert "\n" not in str(error.value)


def test_a_net_whose_training_diverged(tmp_path: Path) -> None:
    net = make_net()
    net.get_layer("head_dense").bias.assign(np.full(10, np.nan))
    net.save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="weights that are not finite .*diverged"):
        load_keras(tmp_path)


def test_sizes_are_bounded_before_decoding(tmp_path: Path, monkeypatch) -> None:
    make_net().save(tmp_path / "model.keras")
    monkeypatch.setattr("keras_resnet.inference.open.MAX_NET_BYTES", 1000)
    monkeypatch.setattr(keras.models, "load_model", None)
    with pytest.raises(UserError, match="must have at most 1,000 bytes"):
        load_keras(tmp_path)


def test_a_batch_of_fixed_size_is_refused(tmp_path: Path) -> None:
    module = tf.Module()
    spec = tf.TensorSpec((1, 24, 20, 3), tf.float32, name="x")
    module.f = tf.function(lambda x: {"y": x[:, 0, 0]}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.f})
    with pytest.raises(UserError, match="N not fixed"):
        Classifier.load(tmp_path / "m")
