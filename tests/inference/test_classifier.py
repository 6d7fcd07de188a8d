"""Classifier: nets of ours and of others, three formats, images of every kind; bad ones in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

from keras_resnet.data import images as images_module
from keras_resnet.errors import UserError
from keras_resnet.inference.classifier import Classifier
from keras_resnet.inference.open import load_keras
from tests.helpers import FORMATS, NAMES, bad_models, export, make_net, random_images

SMALL = random_images(5, 24, 20)


@pytest.fixture(scope="module")
def net():
    return make_net()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    return export(net, tmp_path_factory.mktemp("run") / "seed-0")


@pytest.fixture(scope="module")
def classifiers(files):
    return {kind: Classifier.load(path) for kind, path in files.items()}


# --- nets of ours ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_computes_the_net(classifiers, net, kind):
    classifier = classifiers[kind]
    assert (classifier.format, classifier.class_names) == (kind, NAMES)
    assert classifier.image_size == (32, 32)
    for count in (1, 300):
        images = random_images(count, 32, 32)
        probabilities = classifier.predict(images)
        assert probabilities.dtype == np.float32 and probabilities.shape == (count, 10)
        expected = net.predict_on_batch(images.astype(np.float32))
        assert count < 300 or len(np.unique(expected.argmax(axis=1))) > 3
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_a_run_folder_is_its_model(files):
    assert Classifier.load(str(files["keras"].parent)).path == files["keras"]


# --- class names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (None, tuple(f"class {k}" for k in range(10))),
        (str(dict(enumerate(NAMES))), NAMES),
        (str({k: "a\x1b[31m" for k in range(10)}), ("a\N{REPLACEMENT CHARACTER}[31m",) * 10),
        ("{0: 'a', 1: 'b'}", UserError),
        ("__import__('os').system('true')", UserError),
    ],
    ids=range(5),
)
def test_names_in_an_onnx_file(files, tmp_path, metadata, expected):
    proto = onnx.load(files["onnx"])
    onnx.helper.set_model_props(proto, {} if metadata is None else {"names": metadata})
    onnx.save(proto, tmp_path / "m.onnx")
    if expected is UserError:
        with pytest.raises(
            UserError, match=r"m\.onnx must have metadata 'names' of its 10 classes"
        ):
            Classifier.load(tmp_path / "m.onnx")
    else:
        assert Classifier.load(tmp_path / "m.onnx").class_names == expected


def test_names_beside_a_file(files, tmp_path):
    shutil.copy(files["keras"], tmp_path)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"labels\.txt .* must name the 10 classes of model\.keras"):
        Classifier.load(tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join(NAMES), encoding="utf-8-sig")  # as Notepad does
    assert Classifier.load(tmp_path).class_names == NAMES
    (tmp_path / "labels.txt").unlink()
    for foreign in ("[1, 2]", '{"module": "keras"}'):
        (tmp_path / "config.json").write_text(foreign)
        assert Classifier.load(tmp_path).class_names[0] == "class 0"
    for damaged in ("{", '{"settings": 1}', "\0" * 100):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(UserError, match=r"config\.json (could not be read|must)"):
            Classifier.load(tmp_path)


# --- kinds of images ------------------------------------------------------------------------------


def test_arrays_files_and_pil_images_are_the_same(classifiers, tmp_path):
    images = random_images(4, 32, 32)
    Image.fromarray(images[1]).save(tmp_path / "1.png")
    Image.fromarray(images[2]).save(tmp_path / "2.bmp")
    mixed = [images[0], tmp_path / "1.png", str(tmp_path / "2.bmp"), Image.fromarray(images[3])]
    for classifier in classifiers.values():
        expected = classifier.predict(images)
        for same in (mixed, (image for image in mixed), tf.constant(images), images[::-1][::-1]):
            np.testing.assert_array_equal(classifier.predict(same), expected)
        for k, image in enumerate(mixed):
            np.testing.assert_allclose(classifier.predict(image), expected[k : k + 1], atol=1e-6)
        for empty in ([], np.zeros((0, 64, 64, 3), np.uint8)):
            assert classifier.predict(empty).shape == (0, 10)


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (np.zeros((2, 32, 32, 3)), r"float64 .*\(32, 32, 3\); 0\.\.1 becomes 0\.\.255 by"),
        (np.zeros((32, 32, 3), np.int64), "int64"),
        (np.zeros((32, 32), np.uint8), r"\(32, 32\)"),
        (np.zeros((2, 3, 32, 32), np.uint8), r"\(3, 32, 32\)"),
        (np.zeros((2, 0, 32, 3), np.uint8), r"\(0, 32, 3\)"),
        ([np.zeros((2, 32, 32, 3), np.uint8)], r"\(2, 32, 32, 3\)"),
        (None, "object"),
        (b"cat.png", "int64"),
        (Image.new("F", (32, 32)), "floats"),
        (Image.new("RGB", (0, 7)), "0 x 7 pixels"),
    ],
    ids=range(10),
)
def test_other_input_is_a_value_error(classifiers, images, received):
    with pytest.raises(ValueError, match=received):
        classifiers["onnx"].predict(images)


def test_chunks_bound_the_memory(monkeypatch):
    sizes, alive = [], []
    monkeypatch.setattr(images_module, "CHUNK", 4)

    def run(images):
        sizes.append(len(images))
        return np.full((len(images), 10), 0.1, np.float32)

    def stream():
        for k in range(10):
            alive.append(k - sum(sizes))  # decoded and not yet run
            yield random_images(32, 32)

    fake = Classifier(Path("x"), "onnx", (32, 32), NAMES, run)
    assert fake.predict(stream()).shape == (10, 10)
    assert sizes == [4, 4, 2] and max(alive) < 4


# --- nets of others -------------------------------------------------------------------------------


def backbone() -> keras.Model:
    """Another architecture, with Dropout and layers inside a model."""
    image = keras.Input((24, 20, 3))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.SeparableConv2D(8, 3, strides=2, activation="swish")(x)
    return keras.Model(image, layers.GlobalMaxPooling2D()(layers.Dropout(0.5)(x)))


HEADS = {
    "softmax": lambda: layers.Dense(4, activation="softmax"),
    "logits": lambda: layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(0, 5)),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of tf2onnx
@pytest.mark.parametrize("head", HEADS)
def test_any_keras_classifier(head, tmp_path, capsys):
    """Functional and Sequential, saved by Keras, and what Keras itself exports."""
    body, top = backbone(), HEADS[head]()
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


def two_inputs() -> keras.Model:
    inputs = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Add()(inputs))))


def two_outputs() -> keras.Model:
    net = with_shape((8, 8, 3))
    return keras.Model(net.input, [net.output, layers.Dense(3)(net.output)])


def with_shape(shape: tuple[int | None, ...], units: int = 2) -> keras.Model:
    image = keras.Input(shape)
    x = layers.GlobalMaxPooling2D()(image) if len(shape) == 3 else image
    return keras.Model(image, layers.Dense(units)(x))


@pytest.mark.parametrize(
    "build",
    [two_inputs, two_outputs, lambda: with_shape((8, 8, 1)), lambda: with_shape((None, None, 3)),
     lambda: with_shape((7,)), lambda: with_shape((8, 8, 3), 1)],
    ids=["two inputs", "two outputs", "gray", "any size", "vector", "one class"],
)  # fmt: skip
def test_what_is_no_classifier_of_rgb_images(build, tmp_path):
    build().save(tmp_path / "other.keras")
    with pytest.raises(UserError, match=r"must take RGB images .*Received: \(") as error:
        Classifier.load(tmp_path / "other.keras")
    assert "\n" not in str(error.value)


def test_what_is_named_probabilities_must_hold_some(tmp_path):
    body = backbone()
    named = layers.Dense(4, name="probabilities", bias_initializer="ones")(body.output)
    keras.Model(body.input, named).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="must return probabilities, as its output is named"):
        Classifier.load(tmp_path / "other.keras").predict(SMALL)


# --- bad models -----------------------------------------------------------------------------------


def test_bad_models_are_named_in_one_line(tmp_path, files):
    for name, (path, message) in bad_models(tmp_path, files).items():
        with pytest.raises(UserError, match=message) as error:
            Classifier.load(path)
        assert path.name in str(error.value) and "\n" not in str(error.value), name
        assert len(str(error.value)) < 500, name


def test_folders_without_a_net_say_what_they_are(files, tmp_path, monkeypatch):
    (tmp_path / "seed-0").mkdir()
    shutil.copy(files["keras"], tmp_path / "seed-0")
    with pytest.raises(UserError, match="is an experiment: name one of its runs"):
        Classifier.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not finished"):
        Classifier.load(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("resnet20").mkdir()
    with pytest.raises(UserError, match="is empty, and hides the trained net of that name: rename"):
        Classifier.load("resnet20")


def onnx_net(path: Path, kind: str, reshape: tuple[int, ...]) -> Path:
    """A foreign net: the sums of each image's channels, in double, by way of a fixed shape."""
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=types.DOUBLE),
        helper.make_node("ReduceSum", ["x", "axes"], ["sums"], keepdims=0),
        helper.make_node("Reshape", ["sums", "shape"], ["scores"]),
    ]
    constants = [
        helper.make_tensor("axes", types.INT64, [2], [1, 2]),
        helper.make_tensor("shape", types.INT64, [2], reshape),
    ]
    image = helper.make_tensor_value_info("image", getattr(types, kind), ["N", 24, 20, 3])
    scores = helper.make_tensor_value_info("scores", types.DOUBLE, ["N", 3])
    graph = helper.make_graph(nodes, "g", [image], [scores], constants)
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "DOUBLE", "INT64", "UINT16"])
def test_onnx_of_any_type_that_holds_pixels(kind, tmp_path):
    probabilities = Classifier.load(onnx_net(tmp_path / "m.onnx", kind, (-1, 3))).predict(SMALL)
    brightest = SMALL.sum(axis=(1, 2), dtype=np.int64).argmax(axis=1)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), brightest)


@pytest.mark.parametrize(
    ("kind", "reshape", "message"),
    [
        ("INT8", (-1, 3), "could not run 5 uint8 images: .*int8"),
        ("BFLOAT16", (-1, 3), "could not run 5 uint8 images: "),
        ("FLOAT", (1, 3), "could not run 5 uint8 images: .*Reshape"),
    ],
    ids=["int8", "bfloat16", "batch of 1"],
)
def test_onnx_that_cannot_run_the_images_is_one_line(kind, reshape, message, tmp_path):
    classifier = Classifier.load(onnx_net(tmp_path / "m.onnx", kind, reshape))
    with pytest.raises(UserError, match=rf"m\.onnx {message}") as error:
        classifier.predict(SMALL)
    assert "\n" not in str(error.value)


def test_a_net_of_huge_images_is_refused_before_memory_is_used(tmp_path):
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.UINT8
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceMax", ["image"], ["scores"], axes=[1, 2], keepdims=0)],
        "g",
        [value("image", kind, ["N", 100_000, 100_000, 3])],
        [value("scores", kind, ["N", 3])],
    )
    opsets = [onnx.helper.make_opsetid("", 13)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx"
    )
    with pytest.raises(
        UserError, match=r"at most 4096 pixels per side.* Received: \(None, 100000, 100000, 3\)"
    ):
        Classifier.load(tmp_path / "m.onnx")


def test_code_in_a_file_does_not_run(tmp_path):
    """Keras's safe mode stays on."""
    body = backbone()
    x = layers.Lambda(lambda x: x + 1)(body.output)
    keras.Model(body.input, layers.Softmax()(x)).save(tmp_path / "lambda.keras")
    with pytest.raises(UserError, match=r"lambda\.keras could not be opened as a Keras") as error:
        Classifier.load(tmp_path / "lambda.keras")
    assert "\n" not in str(error.value)


def test_weights_that_are_not_finite_or_too_many(tmp_path, monkeypatch):
    net = make_net()
    net.get_layer("head_dense").bias.assign(np.full(10, np.nan))
    net.save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="weights that are not finite .*diverged"):
        load_keras(tmp_path)
    monkeypatch.setattr("keras_resnet.inference.open.MAX_NET_BYTES", 1000)
    monkeypatch.setattr(keras.models, "load_model", None)
    with pytest.raises(UserError, match="must have at most 1,000 bytes"):
        load_keras(tmp_path)


@pytest.mark.parametrize("kind", ["keras", "onnx"])
def test_a_file_of_an_export_must_have_its_sha256(files, tmp_path, kind):
    shutil.copy(files[kind], tmp_path)
    facts = {"sha256": {files[kind].name: "0" * 64}}
    (tmp_path / "export.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=f"{files[kind].name} is damaged: its SHA-256"):
        Classifier.load(tmp_path / files[kind].name)
