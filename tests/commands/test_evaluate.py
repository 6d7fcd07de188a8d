"""`keras-resnet evaluate`: the numbers against ones computed by hand, plot, bad input."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_resnet.commands import terminal
from keras_resnet.commands.evaluate import dataset_of, main
from keras_resnet.data import constants, datasets, synthetic
from keras_resnet.inference.classifier import Classifier
from keras_resnet.inference.confusion import PLOT_SUFFIXES, error_table, plot
from keras_resnet.inference.evaluate import Evaluation
from tests.helpers import FORMATS, bad_models, export, make_net

NAMES = constants.SYNTHETIC_CLASSES


@pytest.fixture(scope="module")
def net():
    return make_net()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    return export(net, tmp_path_factory.mktemp("run") / "seed-0", NAMES)


@pytest.fixture
def data(small_synthetic):
    return datasets.load("synthetic")


def fake(probabilities, names=("a", "b", "c")):
    """A Classifier that returns `probabilities[k]` for an image whose first pixel is k."""
    table = np.array(probabilities, np.float32)
    return Classifier(Path("x"), "onnx", (32, 32), names, lambda x: table[x[:, 0, 0, 0]])


def run(capsys, *arguments):
    code = terminal.run(lambda: main([str(a) for a in arguments]))
    out, err = capsys.readouterr()
    return code, out, err.splitlines()


@pytest.mark.parametrize("split", ["test", "train"])
@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_what_keras_gives(capsys, files, net, data, kind, split):
    code, out, err = run(
        capsys, "--model", files[kind], "--dataset", "synthetic", "--split", split, "--json"
    )
    assert (code, err) == (0, [])
    result = json.loads(out)
    images = data.test_images if split == "test" else data.train_images
    labels = data.test_labels if split == "test" else data.train_labels
    probabilities = net.predict(images.astype(np.float32), verbose=0)
    predicted = probabilities.argmax(axis=1)
    assert result["error"] == pytest.approx(100 * np.mean(predicted != labels), abs=0.11)
    loss = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    assert result["loss"] == pytest.approx(float(np.mean(loss)), rel=1e-4)
    assert (result["format"], result["split"], result["images"]) == (kind, split, len(images))
    assert result["class_names"] == list(NAMES)
    confusion = np.array(result["confusion"])
    assert confusion.sum(axis=1).tolist() == np.bincount(labels, minlength=10).tolist()
    assert abs(confusion.sum(axis=0) - np.bincount(predicted, minlength=10)).max() <= 2
    share = 100 - 100 * np.diag(confusion) / confusion.sum(axis=1)
    np.testing.assert_allclose(result["class_errors"], share, atol=1e-5)


def test_the_table(capsys, files, data):
    code, out, err = run(capsys, "--model", files["onnx"], "--dataset", "synthetic")
    assert (code, err) == (0, [])
    for text in ("error:", "loss:", "images/s", "synthetic, test split, 500 images"):
        assert text in out
    for name in NAMES:
        assert sum(line.startswith(f"{name} ") for line in out.splitlines()) == 2
    assert max(map(len, out.splitlines())) < 100


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"settings": {"dataset": "synthetic"}, "class_names": list(NAMES)}),
        ("export.json", {"dataset": "synthetic"}),
    ],
)
def test_the_data_set_is_that_of_the_run(capsys, files, data, tmp_path, file, content):
    (tmp_path / "model.keras").write_bytes(files["keras"].read_bytes())
    (tmp_path / file).write_text(json.dumps(content))
    code, out, err = run(capsys, "--model", tmp_path / "model.keras", "--json")
    assert (code, err) == (0, [])
    assert json.loads(out)["dataset"] == "synthetic"


def test_the_data_folder_is_that_of_the_run(capsys, files, tmp_path, data_dir, monkeypatch):
    """A run trained with --data-dir is evaluated without it; the real CIFAR-10, all 10,000 images."""
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.keras").write_bytes(files["keras"].read_bytes())
    settings = {"dataset": "cifar10", "data_dir": data_dir}
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings}))
    code, out, err = run(capsys, "--model", tmp_path / "model.keras", "--json")
    assert (code, err) == (0, [])
    assert json.loads(out)["images"] == 10_000


@pytest.mark.parametrize("content", ["no JSON", "[" * 100_000, "[]", '{"settings": 1}'])
def test_foreign_files_beside_the_model_do_not_matter(files, tmp_path, content):
    (tmp_path / "model.keras").write_bytes(files["keras"].read_bytes())
    (tmp_path / "config.json").write_text(content)
    classifier = Classifier.load(tmp_path / "model.keras")
    assert dataset_of(classifier) == ("cifar10", None)


def test_without_a_run_the_classes_tell_the_data_set():
    for name, names in constants.CLASS_NAMES.items():
        assert dataset_of(fake([[1.0]], names)) == (name, None)
    assert dataset_of(fake([[1.0]])) == ("cifar10", None)


def test_a_hundred_classes_are_not_printed_as_a_matrix():
    result = Evaluation(np.eye(100, dtype=np.int64), 0.0, 1.0)
    assert len(error_table(result, [f"c{k}" for k in range(100)]).splitlines()) == 101


def test_another_data_set_is_refused(capsys, files, tmp_path, monkeypatch):
    tiny = dataclasses.replace(
        synthetic.synthetic((10, 10)), name="cifar10", class_names=tuple("abcdefghij")
    )
    monkeypatch.setattr(datasets, "load", lambda *_: tiny)
    code, _, err = run(capsys, "--model", files["onnx"])
    assert (code, len(err)) == (2, 1) and "--dataset" in err[0] and "disc" in err[0]
    bare = tmp_path / "model.keras"  # classes without names fit any data set of as many
    bare.write_bytes(files["keras"].read_bytes())
    assert run(capsys, "--model", bare)[0] == 0
    monkeypatch.setattr(
        datasets, "load", lambda *_: dataclasses.replace(tiny, class_names=tuple("abcdefghijk"))
    )
    code, _, err = run(capsys, "--model", bare)
    assert (code, len(err)) == (2, 1) and "11: a, b" in err[0]


@pytest.mark.parametrize("suffix", PLOT_SUFFIXES)
def test_plot(capsys, files, data, tmp_path, suffix):
    path = tmp_path / f"confusion{suffix}"
    code, out, err = run(capsys, "--model", files["onnx"], "--dataset", "synthetic", "--plot", path)
    assert (code, err) == (0, []) and str(path) in out
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if suffix == ".png":
        with Image.open(path) as image:
            assert min(image.size) > 900
            assert len(image.convert("RGB").getcolors(2**24)) > 50


def test_plot_writes_the_counts(tmp_path):
    result = Evaluation(np.array([[71, 5], [0, 93]]), 0.1, 1.0)
    plot(tmp_path / "c.svg", result, ("cat", "dog"), "x")
    plot(tmp_path / "wide.png", Evaluation(np.eye(100, dtype=int), 0, 1), ["n"] * 100, "x")
    svg = (tmp_path / "c.svg").read_text()
    for text in ("71", "93", "cat", "dog", "predicted class", "true class"):
        assert f"<!-- {text} -->" in svg
    assert "<!-- 5 -->" in svg


@pytest.mark.parametrize(
    ("plot", "message"), [("a.txt", "must end in"), ("a", "must end in"), ("no/a.png", "folder")]
)
def test_bad_plots_end_before_the_work(capsys, files, tmp_path, plot, message, monkeypatch):
    monkeypatch.setattr(datasets, "load", None)
    code, out, err = run(capsys, "--model", files["onnx"], "--plot", tmp_path / plot)
    assert (code, out, len(err)) == (2, "", 1) and message in err[0]


def test_without_matplotlib(capsys, files, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    code, _, err = run(capsys, "--model", files["onnx"], "--plot", tmp_path / "a.png")
    assert (code, len(err)) == (2, 1) and "pip install" in err[0]


def test_bad_models_end_in_one_line(capsys, files, tmp_path):
    for name, (path, _) in bad_models(tmp_path, files).items():
        code, out, err = run(capsys, "--model", path, "--dataset", "synthetic")
        assert (code, out, len(err)) == (2, "", 1), (name, err)
        assert err[0].startswith("error: ") and path.name in err[0]
