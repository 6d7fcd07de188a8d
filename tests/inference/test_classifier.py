"""Classifier: nets of ours in three formats, images of every kind; bad ones in one line."""

import io
import json
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet.data import images as images_module
from keras_resnet.errors import UserError
from keras_resnet.inference.classifier import Classifier
from keras_resnet.inference.open import load_keras
from tests.helpers import NAMES, export, make_net, random_images


@pytest.fixture(scope="module")
def net():
    return make_net()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    return export(net, tmp_path_factory.mktemp("run") / "seed-0")


@pytest.fixture(scope="module")
def classifiers(files):
    return {kind: Classifier.load(path) for kind, path in files.items()}


@pytest.mark.parametrize("kind", ["keras", "saved_model", "onnx"])
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


def test_names_in_an_onnx_file(files, tmp_path):
    proto, path = onnx.load(files["onnx"]), tmp_path / "m.onnx"
    onnx.helper.set_model_props(proto, {})
    onnx.save(proto, path)
    assert Classifier.load(path).class_names == tuple(f"class {k}" for k in range(10))
    onnx.helper.set_model_props(proto, {"names": "{0: 'a', 1: 'b'}"})
    onnx.save(proto, path)
    with pytest.raises(UserError, match=r"m\.onnx must have metadata 'names' of its 10 classes"):
        Classifier.load(path)


def test_names_beside_a_file(files, tmp_path):
    shutil.copy(files["keras"], tmp_path)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"labels\.txt .* must name the 10 classes of model\.keras"):
        Classifier.load(tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join(NAMES), encoding="utf-8-sig")  # as Notepad does
    assert Classifier.load(tmp_path).class_names == NAMES
    (tmp_path / "labels.txt").unlink()
    (tmp_path / "config.json").write_text('{"module": "keras"}')  # of another program
    assert Classifier.load(tmp_path).class_names[0] == "class 0"
    for damaged in ("{", '{"settings": 1}'):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(UserError, match=r"config\.json (could not be read|must)"):
            Classifier.load(tmp_path)


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
        assert classifier.predict([]).shape == (0, 10)


def test_other_input_is_a_value_error(classifiers):
    for images, received in (
        (np.zeros((2, 32, 32, 3)), r"float64 .*\(32, 32, 3\); 0\.\.1 becomes 0\.\.255 by"),
        (np.zeros((2, 3, 32, 32), np.uint8), r"\(3, 32, 32\)"),
        (np.zeros((2, 0, 32, 3), np.uint8), r"\(0, 32, 3\)"),
        (Image.new("F", (32, 32)), "floats"),
        (Image.new("RGB", (0, 7)), "0 x 7 pixels"),
    ):
        with pytest.raises(ValueError, match=received):
            classifiers["onnx"].predict(images)


def test_open_files_are_images_and_a_call_checks_its_array(classifiers):
    classifier, image = classifiers["keras"], random_images(1, 32, 32)
    file = io.BytesIO()
    Image.fromarray(image[0]).save(file, "PNG")
    np.testing.assert_array_equal(classifier.predict(file), classifier(image))
    with tempfile.NamedTemporaryFile() as empty, pytest.raises(UserError, match="none of PNG"):
        classifier.predict(empty)  # no file of the module io, and one can iterate over it
    for wrong in (random_images(1, 48, 48), image / 255):
        with pytest.raises(ValueError, match=r"`images` must be uint8 \(N, 32, 32, 3\)"):
            classifier(wrong)


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


def test_damaged_models_are_named_in_one_line(tmp_path, files):
    keras_file, onnx_file = files["keras"].read_bytes(), files["onnx"].read_bytes()
    for name, content, message in (
        ("no.keras", None, "does not exist"),
        ("truncated.keras", keras_file[: len(keras_file) // 2], "damaged"),
        ("model.h5", b"x", r"must be a \.keras file.*another file"),
        ("truncated.onnx", onnx_file[: len(onnx_file) // 2], "could not be read as an ONNX"),
        ("saved_model.pb", b"I am a poem.\n", "could not be read as a SavedModel"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        if name == "saved_model.pb":
            path = tmp_path
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


def test_code_in_a_file_does_not_run(tmp_path):
    """Keras's safe mode stays on."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.Lambda(lambda x: x + 1)(keras.layers.GlobalMaxPooling2D()(image))
    keras.Model(image, x).save(tmp_path / "lambda.keras")
    with pytest.raises(UserError, match=r"lambda\.keras could not be opened as a Keras") as error:
        Classifier.load(tmp_path / "lambda.keras")
    assert "\n" not in str(error.value)


def test_weights_that_are_not_finite(tmp_path):
    net = make_net()
    net.get_layer("head_dense").bias.assign(np.full(10, np.nan))
    net.save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="weights that are not finite .*diverged"):
        load_keras(tmp_path)


def test_a_file_of_an_export_must_have_its_sha256(files, tmp_path):
    shutil.copy(files["onnx"], tmp_path)
    (tmp_path / "export.json").write_text(json.dumps({"sha256": {"model.onnx": "0" * 64}}))
    with pytest.raises(UserError, match="model.onnx is damaged: its SHA-256"):
        Classifier.load(tmp_path / "model.onnx")
