"""`keras-resnet evaluate`: the numbers against Keras's, the data set that it takes, plot, bad input."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_resnet.data import constants, datasets, synthetic
from keras_resnet.inference import confusion
from keras_resnet.inference.evaluate import evaluate
from tests.helpers import call, export, make_net

pytestmark = pytest.mark.usefixtures("small_synthetic")
NAMES = constants.SYNTHETIC_CLASSES
IMAGES = np.zeros((2, 8, 8, 3), np.uint8) + np.arange(2, dtype=np.uint8)[:, None, None, None]


@pytest.fixture(scope="module")
def net():
    return make_net()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    return export(net, tmp_path_factory.mktemp("run") / "seed-0", NAMES)


@pytest.fixture
def run(capsys):
    def run(*arguments):
        """Standard output; nothing is on stderr."""
        assert call("evaluate", *arguments) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return run


@pytest.mark.parametrize("split", ["test", "train"])
def test_it_gives_what_keras_gives(run, files, net, split):
    result = json.loads(run("--model", files["onnx"], "--split", split, "--json"))
    data = datasets.load("synthetic")
    images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
    probabilities = net.predict(images.astype(np.float32), verbose=0)
    predicted = probabilities.argmax(axis=1)
    assert result["error"] == pytest.approx(100 * np.mean(predicted != labels), abs=0.11)
    loss = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    assert result["loss"] == pytest.approx(float(np.mean(loss)), rel=1e-4)
    assert (result["format"], result["dataset"], result["split"]) == ("onnx", "synthetic", split)
    assert result["class_names"] == list(NAMES)
    confusion = np.array(result["confusion"])
    share = 100 - 100 * np.diag(confusion) / confusion.sum(axis=1)
    np.testing.assert_allclose(result["class_errors"], share, atol=1e-5)


def test_the_table_and_the_plot(run, files, tmp_path):
    out = run("--model", files["onnx"], "--plot", tmp_path / "confusion.svg")
    for text in ("error:", "loss:", "images/s", "synthetic, test split, 500 images"):
        assert text in out
    for name in NAMES:
        assert sum(line.startswith(f"{name} ") for line in out.splitlines()) == 2
    assert max(map(len, out.splitlines())) < 100
    svg = (tmp_path / "confusion.svg").read_text()
    for text in (*NAMES, "predicted class", "true class", out.split()[-1]):  # the last is a count
        assert f"<!-- {text} -->" in svg


def test_dollars_in_names_are_drawn_as_they_are(tmp_path):
    result = evaluate(lambda images: np.eye(2)[images[:, 0, 0, 0]], IMAGES, [0, 1])
    confusion.plot(tmp_path / "plot.svg", result, ["$1-$2", "$3"], "m$x_$^")
    svg = (tmp_path / "plot.svg").read_text()
    assert all(f"<!-- {text}" in svg for text in ("$1-$2", "$3", "m$x_$^"))


def test_bad_plots_end_before_the_work(files, tmp_path, monkeypatch, refused):
    monkeypatch.setattr(datasets, "load", None)
    for plot in ("a.txt", "no/a.png"):
        error = refused("evaluate", "--model", files["onnx"], "--plot", tmp_path / plot)
        assert "--plot must end in" in error


def test_the_data_set_is_that_of_the_run(files, tmp_path, capsys):
    """A run's config.json comes first, then the names of its classes."""
    (tmp_path / "model.keras").write_bytes(files["keras"].read_bytes())
    (tmp_path / "labels.txt").write_text("".join(f"class {k}\n" for k in range(10)))
    for content in (
        {"settings": {"dataset": "synthetic", "data_dir": "/not/here"}},
        {"settings": {}, "class_names": list(NAMES)},
    ):
        (tmp_path / "config.json").write_text(json.dumps(content))
        unnamed = (tmp_path / "labels.txt").exists()
        assert call("evaluate", "--model", tmp_path, "--json") == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["dataset"] == "synthetic"
        assert ("no names; they are taken for those of synthetic" in err) == unnamed
        (tmp_path / "labels.txt").unlink(missing_ok=True)


def test_another_data_set_is_refused(files, monkeypatch, refused):
    tiny = dataclasses.replace(
        synthetic.synthetic((10, 10)), name="cifar10", class_names=tuple("abcdefghij")
    )
    monkeypatch.setattr(datasets, "load", lambda *_: tiny)
    error = refused("evaluate", "--model", files["onnx"])
    assert "--dataset" in error and "disc" in error
