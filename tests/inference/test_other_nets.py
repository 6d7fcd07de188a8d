"""Nets of others: any Keras classifier, and ONNX files, whose images and outputs are what they say."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import TensorProto

from keras_resnet.errors import UserError
from keras_resnet.inference.classifier import Classifier
from tests.helpers import onnx_model, random_images

SMALL = random_images(5, 24, 20)


def backbone():
    """Another architecture, with Dropout and layers inside a model."""
    image = keras.Input((24, 20, 3))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.SeparableConv2D(8, 3, strides=2, activation="swish")(x)
    return keras.Model(image, layers.GlobalMaxPooling2D()(layers.Dropout(0.5)(x)))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of tf2onnx
@pytest.mark.parametrize("head", ["softmax", "logits"])
def test_any_keras_classifier(head, tmp_path, capsys):
    """Functional and Sequential, saved by Keras, and what Keras itself exports."""
    body, kernel = backbone(), keras.initializers.RandomNormal(0, 5)
    activation = None if head == "logits" else "softmax"
    top = layers.Dense(4, activation=activation, kernel_initializer=kernel)
    net = keras.Model(body.input, top(body.output))
    net.save(tmp_path / "functional.keras")
    keras.Sequential([keras.Input((24, 20, 3)), body, top]).save(tmp_path / "sequential.keras")
    outputs = net.predict(SMALL, verbose=0)
    expected = outputs if head == "softmax" else np.asarray(keras.ops.softmax(outputs))
    net.export(tmp_path / "folder", format="tf_saved_model", verbose=False)
    net.export(tmp_path / "other.onnx", format="onnx", verbose=False)
    for name in ("functional.keras", "sequential.keras", "folder", "other.onnx"):
        classifier = Classifier.load(tmp_path / name)
        assert (classifier.image_size, len(classifier.class_names)) == ((24, 20), 4)
        capsys.readouterr()
        for _ in range(2):
            np.testing.assert_allclose(classifier.predict(SMALL), expected, atol=1e-5)
        notes = capsys.readouterr().err.splitlines()
        assert [f"{name} returns logits" in note for note in notes] == [True] * (head == "logits")


@pytest.mark.parametrize(
    ("shape", "units"), [((8, 8, 1), 2), ((None, None, 3), 2), ((7,), 2), ((8, 8, 3), 1)]
)
def test_what_is_no_classifier_of_rgb_images(shape, units, tmp_path):
    image = keras.Input(shape)
    x = layers.GlobalMaxPooling2D()(image) if len(shape) == 3 else image
    keras.Model(image, layers.Dense(units)(x)).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match=r"must take RGB images .*Received: \("):
        Classifier.load(tmp_path / "other.keras")


def test_a_sigmoid_is_refused(tmp_path):
    """A softmax after it would give other numbers than the net's own."""
    body = backbone()
    net = keras.Model(body.input, layers.Dense(4, activation="sigmoid")(body.output))
    net.save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="sum is 1, or logits. Received: .* ends in a sigmoid"):
        Classifier.load(tmp_path / "other.keras")


def test_class_names_in_another_encoding_are_refused(tmp_path):
    body = backbone()
    keras.Model(body.input, layers.Dense(2)(body.output)).save(tmp_path / "other.keras")
    (tmp_path / "labels.txt").write_bytes("Käfer\nKatze\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"labels\.txt must be text in UTF-8"):
        Classifier.load(tmp_path / "other.keras")


def test_what_is_named_probabilities_must_hold_some(tmp_path):
    body = backbone()
    named = layers.Dense(4, name="probabilities", bias_initializer="ones")(body.output)
    keras.Model(body.input, named).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="must return probabilities, as its output is named"):
        Classifier.load(tmp_path / "other.keras").predict(SMALL)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([("image", TensorProto.UINT8, ["N", 3, 32, 32])], "must take RGB images"),
        ([("image", TensorProto.UINT8, [1, 32, 32, 3])], "must take RGB images"),
        ([(k, TensorProto.UINT8, ["N", 8, 8, 3]) for k in "ab"], "must take RGB images"),
        # Refused before memory is used.
        ([("image", TensorProto.UINT8, ["N", 10**5, 10**5, 3])], "at most 4096 pixels per side"),
    ],
)
def test_onnx_files_of_other_inputs(inputs, message, tmp_path):
    node = onnx.helper.make_node("Identity", [inputs[0][0]], ["probabilities"])
    outputs = [("probabilities", *inputs[0][1:])]
    onnx_model(tmp_path / "m.onnx", [node], inputs, outputs)
    with pytest.raises(UserError, match=message):
        Classifier.load(tmp_path / "m.onnx")


def sums_of_channels(path, kind):
    """A foreign net: the sums of each image's channels, in double."""
    helper, types = onnx.helper, TensorProto
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=types.DOUBLE),
        helper.make_node("ReduceSum", ["x", "axes"], ["scores"], keepdims=0),
    ]
    axes = helper.make_tensor("axes", types.INT64, [2], [1, 2])
    inputs = [("image", getattr(types, kind), ["N", 24, 20, 3])]
    return onnx_model(path, nodes, inputs, [("scores", types.DOUBLE, ["N", 3])], [axes])


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "DOUBLE", "INT64", "UINT16"])
def test_onnx_of_any_type_that_holds_pixels(kind, tmp_path):
    file = sums_of_channels(tmp_path / "m.onnx", kind)
    probabilities = Classifier.load(file).predict(SMALL)
    brightest = SMALL.sum(axis=(1, 2), dtype=np.int64).argmax(axis=1)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), brightest)


def test_onnx_that_cannot_run_the_images_is_one_line(tmp_path):
    classifier = Classifier.load(sums_of_channels(tmp_path / "m.onnx", "INT8"))
    with pytest.raises(UserError, match=r"m\.onnx could not run 5 uint8 images: .*int8") as error:
        classifier.predict(SMALL)
    assert "\n" not in str(error.value)
