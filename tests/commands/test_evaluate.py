"""`keras-resnet evaluate`: the numbers against Keras's, the data set that it takes, plot, bad input."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_resnet.commands import terminal
from keras_resnet.commands.evaluate import main
from keras_resnet.data import constants, datasets, synthetic
from keras_resnet.inference.confusion import error_table, plot
from keras_resnet.inference.evaluate import Evaluation
from tests.helpers import export, make_net

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


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = terminal.run(lambda: main([str(a) for a in arguments]))
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run


@pytest.mark.parametrize("split", ["test", "train"])
def test_it_gives_what_keras_gives(run, files, net, data, split):
    code, out, err = run("--model", files["onnx"], "--split", split, "--json")
    assert (code, err) == (0, [])
    result = json.loads(out)
    images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
    probabilities = net.predict(images.astype(np.float32), verbose=0)
    predicted = probabilities.argmax(axis=1)
    assert result["error"] == pytest.approx(100 * np.mean(predicted != labels), abs=0.11)
    loss = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    assert result["loss"] == pytest.approx(float(np.mean(loss)), rel=1e-4)
    assert (result["format"], result["dataset"], result["split"]) == ("onnx", "synthetic", split)
    assert result["class_names"] == list(NAMES)
    confusion = np.array(result["confusion"])
    assert confusion.sum(axis=1).tolist() == np.bincount(labels, minlength=10).tolist()
    assert abs(confusion.sum(axis=0) - np.bincount(predicted, minlength=10)).max() <= 2
    share = 100 - 100 * np.diag(confusion) / confusion.sum(axis=1)
    np.testing.assert_allclose(result["class_errors"], share, atol=1e-5)


def test_the_table_and_the_plot(run, files, data, tmp_path):
    code, out, err = run("--model", files["onnx"], "--plot", tmp_path / "confusion.svg")
    assert (code, err) == (0, [])
    for text in ("error:", "loss:", "images/s", "synthetic, test split, 500 images"):
        assert text in out
    for name in NAMES:
        assert sum(line.startswith(f"{name} ") for line in out.splitlines()) == 2
    assert max(map(len, out.splitlines())) < 100
    assert [p.name for p in tmp_path.iterdir()] == ["confusion.svg"]
    svg = (tmp_path / "confusion.svg").read_text()
    for text in (*NAMES, "predicted class", "true class", out.split()[-1]):  # the last is a count
        assert f"<!-- {text} -->" in svg
    hundred = Evaluation(np.eye(100, dtype=np.int64), 0.0, 1.0)
    plot(tmp_path / "wide.png", hundred, ["n"] * 100, "x")
    with Image.open(tmp_path / "wide.png") as image:
        assert len(image.convert("RGB").getcolors(2**24)) > 50
    assert len(error_table(hundred, [f"c{k}" for k in range(100)]).splitlines()) == 104


@pytest.mark.parametrize("plot", ["a.txt", "a", "no/a.png"])
def test_bad_plots_end_before_the_work(run, files, tmp_path, plot, monkeypatch):
    monkeypatch.setattr(datasets, "load", None)
    code, out, err = run("--model", files["onnx"], "--plot", tmp_path / plot)
    assert (code, out, len(err)) == (2, "", 1) and "--plot must end in" in err[0]


def test_the_data_set_is_that_of_the_run(run, files, data, tmp_path):
    """A run's config.json comes first, then the names of its classes."""
    (tmp_path / "model.keras").write_bytes(files["keras"].read_bytes())
    (tmp_path / "labels.txt").write_text("".join(f"class {k}\n" for k in range(10)))
    for content in (
        {"settings": {"dataset": "synthetic", "data_dir": "/not/here"}},
        {"settings": {}, "class_names": list(NAMES)},
    ):
        (tmp_path / "config.json").write_text(json.dumps(content))
        unnamed = (tmp_path / "labels.txt").exists()
        code, out, err = run("--model", tmp_path, "--json")
        assert code == 0 and json.loads(out)["dataset"] == "synthetic"
        told = ["no names; they are taken for those of synthetic" in line for line in err]
        assert told == [True] * unnamed
        (tmp_path / "labels.txt").unlink(missing_ok=True)


def test_another_data_set_is_refused(run, files, monkeypatch):
    tiny = dataclasses.replace(
        synthetic.synthetic((10, 10)), name="cifar10", class_names=tuple("abcdefghij")
    )
    monkeypatch.setattr(datasets, "load", lambda *_: tiny)
    code, _, err = run("--model", files["onnx"])
    assert (code, len(err)) == (2, 1) and "--dataset" in err[0] and "disc" in err[0]
