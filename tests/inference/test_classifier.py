"""Classifier: three formats, one behavior; images of every kind; bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet.data import images as images_module
from keras_resnet.errors import UserError
from keras_resnet.export import pipeline
from keras_resnet.inference.class_names import parse_names
from keras_resnet.inference.classifier import Classifier
from tests.helpers import (
    FORMATS,
    NAMES,
    bad_models,
    export,
    make_net,
    random_images,
)


@pytest.fixture(scope="module")
def net():
    return make_net()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    return export(net, tmp_path_factory.mktemp("run") / "seed-0")


@pytest.fixture(scope="module")
def classifiers(files):
    return {kind: Classifier.load(path) for kind, path in files.items()}


@pytest.fixture
def classifier(classifiers):
    return classifiers["onnx"]


# --- the same for each format ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("count", [1, 7, 300])
def test_each_format_computes_the_net(classifiers, net, kind, count):
    images = random_images(count, 32, 32)
    probabilities = classifiers[kind].predict(images)
    assert probabilities.dtype == np.float32 and probabilities.shape == (count, 10)
    expected = net.predict_on_batch(images.astype(np.float32))
    assert count < 300 or len(np.unique(expected.argmax(axis=1))) > 3  # the test net sees something
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_knows_its_classes_and_size(classifiers, kind):
    classifier = classifiers[kind]
    assert (classifier.format, classifier.class_names) == (kind, NAMES)
    assert classifier.image_size == (32, 32)


def test_what_export_writes_is_opened(net, files, tmp_path):
    folder = tmp_path / "exported"
    pipeline.export(files["keras"], folder, data_dir=str(tmp_path))  # without data: synthetic
    images = random_images(7, 32, 32)
    for name in ("saved_model", "model.onnx"):
        classifier = Classifier.load(folder / name)
        assert classifier.class_names == NAMES
        np.testing.assert_allclose(classifier.predict(images), net(images), atol=1e-5)


def test_a_run_folder_is_its_model(files, classifiers):
    classifier = Classifier.load(str(files["keras"].parent))
    assert (classifier.path, classifier.class_names) == (files["keras"], NAMES)
    image = random_images(32, 32)
    assert np.array_equal(classifier.predict(image), classifiers["keras"].predict(image))


@pytest.mark.parametrize("kind", FORMATS)
def test_classes_without_names_are_numbered(files, kind, tmp_path):
    target = tmp_path / files[kind].name
    if kind == "onnx":
        proto = onnx.load(files[kind])
        del proto.metadata_props[:]
        onnx.save(proto, target)
    else:
        (shutil.copytree if files[kind].is_dir() else shutil.copy)(files[kind], target)
    assert Classifier.load(target).class_names == tuple(f"class {k}" for k in range(10))


def test_a_net_of_other_size_and_classes(tmp_path):
    files = export(
        make_net(input_shape=(24, 40, 3), num_classes=3), tmp_path / "run", ("a", "b", "c")
    )
    results = []
    for path in files.values():
        classifier = Classifier.load(path)
        assert (classifier.class_names, classifier.image_size) == (("a", "b", "c"), (24, 40))
        results.append(classifier.predict([random_images(24, 40), Image.new("L", (50, 60))]))
    assert results[0].shape == (2, 3)
    np.testing.assert_allclose(results[1], results[0], atol=1e-5)
    np.testing.assert_allclose(results[2], results[0], atol=1e-5)


# --- kinds of input -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_arrays_files_and_pil_images_are_the_same(classifiers, kind, tmp_path):
    images = random_images(4, 32, 32)
    Image.fromarray(images[1]).save(tmp_path / "1.png")
    Image.fromarray(images[2]).save(tmp_path / "2.bmp")
    mixed = [images[0], tmp_path / "1.png", str(tmp_path / "2.bmp"), Image.fromarray(images[3])]
    classifier = classifiers[kind]
    expected = classifier.predict(images)
    np.testing.assert_array_equal(classifier.predict(mixed), expected)
    np.testing.assert_array_equal(classifier.predict(image for image in mixed), expected)
    for k, image in enumerate(mixed):
        np.testing.assert_allclose(classifier.predict(image), expected[k : k + 1], atol=1e-6)
    np.testing.assert_array_equal(classifier.predict(tf.constant(images)), expected)


def test_no_image_gives_no_row(classifier):
    for empty in ([], np.zeros((0, 32, 32, 3), np.uint8), np.zeros((0, 64, 64, 3), np.uint8)):
        assert classifier.predict(empty).shape == (0, 10)


def test_views_that_are_not_contiguous(classifier):
    images = random_images(6, 32, 32)
    np.testing.assert_allclose(
        classifier.predict(images[::-2, :, ::-1]),
        classifier.predict(images[::-2, :, ::-1].copy()),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((32, 32, 3), np.float32),
        np.zeros((2, 32, 32, 3)),
        np.zeros((32, 32, 3), np.int64),
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((1, 2, 32, 32, 3), np.uint8),
        np.zeros((2, 0, 32, 3), np.uint8),
        [np.zeros((2, 32, 32, 3), np.uint8)],
        [np.zeros((32, 32, 3))],
        [[1, 2], [3, 4]],
        [None],
        5,
        None,
        b"cat.png",
        Image.new("F", (32, 32)),
        Image.new("RGB", (0, 7)),
    ],
    ids=lambda v: f"{type(v).__name__}-{getattr(v, 'dtype', '')}-{getattr(v, 'shape', '')}",
)
def test_other_input_is_a_value_error(classifier, images):
    with pytest.raises(ValueError, match=r"uint8 arrays .* Received: \w+ array|floats|no pixels"):
        classifier.predict(images)


def test_float_pixels_get_a_hint(classifier):
    with pytest.raises(ValueError, match=r"Received: float32 .*\(32, 32, 3\).*astype\('uint8'\)"):
        classifier.predict(np.zeros((32, 32, 3), np.float32))


def test_chunks_bound_the_memory(classifier, monkeypatch):
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
    sizes.clear()
    fake.predict(np.zeros((9, 32, 32, 3), np.uint8))
    fake.predict(np.zeros((5, 64, 32, 3), np.uint8))
    assert sizes == [4, 4, 1, 4, 1]


def test_a_net_that_gives_nan_is_refused():
    fake = Classifier(
        Path("x.onnx"), "onnx", (32, 32), NAMES, lambda x: np.full((len(x), 10), np.nan)
    )
    with pytest.raises(UserError, match=r"x\.onnx.*not finite"):
        fake.predict(random_images(32, 32))


def test_a_damaged_file_is_refused_by_the_name_of_its_export_too(files, tmp_path):
    folder = tmp_path / "export"
    pipeline.export(files["keras"], output=folder, formats=["onnx"])
    assert Classifier.load(folder).class_names == NAMES
    file = folder / "model.keras"
    file.write_bytes(file.read_bytes() + b"\0")
    for path in (file, folder):
        with pytest.raises(UserError, match=r"model\.keras is damaged: its SHA-256"):
            Classifier.load(path)


# --- bad models -----------------------------------------------------------------------------------


def test_bad_models_are_named_in_one_line(tmp_path, files):
    for name, (path, message) in bad_models(tmp_path, files).items():
        with pytest.raises(UserError, match=message) as error:
            Classifier.load(path)
        assert path.name in str(error.value) and "\n" not in str(error.value), name
        assert len(str(error.value)) < 500, name


def test_a_run_that_is_not_finished(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not finished"):
        Classifier.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{0: 'a', 1: \"b's\"}", ("a", "b's")),
        ('{"1": "b", "0": "a"}', ("a", "b")),
        ("['a', 'b']", ("a", "b")),
        ("{0: 'a\\x1b[31m', 1: 2}", ("a\N{REPLACEMENT CHARACTER}[31m", "2")),
        ("{0: 'a', 2: 'b'}", None),
        ("{0: 'a'", None),
        ("{}", None),
        ("7", None),
        ("__import__('os').system('true')", None),
    ],
    ids=range(9),
)
def test_names_metadata(text, expected):
    if expected:
        assert parse_names(text, Path("x.onnx")) == expected
    else:
        with pytest.raises(UserError, match=r"x\.onnx: metadata 'names' must be"):
            parse_names(text, Path("x.onnx"))


def test_names_that_do_not_fit_are_an_error(files, tmp_path):
    proto = onnx.load(files["onnx"])
    onnx.helper.set_model_props(proto, {"names": "{0: 'a', 1: 'b'}"})
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(UserError, match=r"m\.onnx has 10 classes but metadata with 2 names"):
        Classifier.load(tmp_path / "m.onnx")
    shutil.copy(files["keras"], tmp_path)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"labels\.txt must name the 10 classes"):
        Classifier.load(tmp_path / "model.keras")
    (tmp_path / "labels.txt").unlink()
    (tmp_path / "config.json").write_text("[1, 2]")  # some other program's
    assert Classifier.load(tmp_path / "model.keras").class_names[0] == "class 0"
