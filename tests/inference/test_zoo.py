"""Every net of the zoo: it is the run in results/, has the error of its entry, and loads by name."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import math
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import keras_resnet
from keras_resnet.data.dataset import Dataset
from keras_resnet.inference import zoo
from keras_resnet.inference.open import load_keras
from keras_resnet.inference.zoo import WEIGHTS, Entry
from keras_resnet.nets.describe import describe
from keras_resnet.nets.stock import stock
from keras_resnet.runs.folder import RunFolder
from keras_resnet.runs.resume import upgraded
from tools.publish import card, pack

REPOSITORY = Path(__file__).resolve().parents[2]
NETS = zoo.entries()

every_net = pytest.mark.parametrize("entry", NETS, ids=lambda entry: entry.name)


def runs_of(entry: Entry) -> list[Path]:
    """The folders in results/ of the runs that a net was chosen from, in the registry's order."""
    found = {}
    for path in (REPOSITORY / "results").glob("*/seed-*/results.json"):
        results = RunFolder(path.parent).read_results()
        config = RunFolder(path.parent).read_config()
        usual = {**results, "recipe": upgraded(config["settings"])["recipe"]}
        if (results.get("model"), results.get("depth")) == (entry.model, entry.depth):
            key = usual["recipe"], usual["steps"], usual["seed"], usual["val_error"]
            found[key] = path.parent
    return [found[dataclasses.astuple(candidate)] for candidate in entry.candidates]


def test_the_registry_lists_what_is_there() -> None:
    assert keras_resnet.zoo.list() == NETS
    assert [WEIGHTS / entry.file for entry in NETS] == sorted(
        WEIGHTS.glob("*/model.keras"),
        key=lambda path: [entry.file for entry in NETS].index(f"{path.parent.name}/model.keras"),
    )
    assert zoo.DEFAULT in {entry.name for entry in NETS}
    assert len({entry.name for entry in NETS}) == len(NETS)


@every_net
def test_its_error_on_cifar10_is_that_of_the_registry(entry: Entry, cifar10: Dataset) -> None:
    classifier = keras_resnet.Classifier.load(entry.name)
    assert classifier.class_names == cifar10.class_names
    result = keras_resnet.evaluate(classifier, cifar10.test_images, cifar10.test_labels)
    # Another CPU's kernels may turn two images that are on the edge of two classes.
    assert result.error == pytest.approx(entry.test_error, abs=0.021)


@every_net
def test_the_entry_is_the_run_in_results(entry: Entry) -> None:
    """config.json, results.json, card and registry say what results/ says: nothing was typed."""
    shipped, run = RunFolder((WEIGHTS / entry.file).parent), RunFolder(runs_of(entry)[0])
    config, results = run.read_config(), run.read_results()
    assert (shipped.read_config(), shipped.read_results()) == (config, results)
    named = {"model", "depth", "dataset", "steps", "seed", "val_error", "test_error", "parameters"}
    assert {key: results[key] for key in named} == {key: getattr(entry, key) for key in named}
    assert upgraded(config["settings"])["recipe"] == entry.recipe
    assert results["git_commit"] == entry.commit
    assert entry.candidates[0].val_error == min(run.val_error for run in entry.candidates)
    assert (shipped.path / "MODEL_CARD.md").read_text() == card(entry, config, results)


@every_net
def test_the_weights_are_compact_float32(entry: Entry) -> None:
    stored = load_keras(WEIGHTS / entry.file)
    described = describe(stored)
    assert (described["model"], described["depth"]) == (entry.model, entry.depth)
    assert described["num_classes"] == 10
    assert described["shortcut"] == ("zeropad" if entry.model == "resnet" else None)
    trainable = sum(math.prod(weight.shape) for weight in stored.trainable_weights)
    assert trainable == entry.parameters
    assert (WEIGHTS / entry.file).stat().st_size < 4.3 * trainable
    assert {weight.dtype for weight in stored.weights} == {"float32"}
    net = getattr(keras_resnet, entry.model)(depth=entry.depth, weights=entry.dataset)
    assert [w.path for w in net.weights] == [w.path for w in stored.weights]
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(net.predict_on_batch(images), stored.predict_on_batch(images))


@every_net
def test_publishing_it_again_gives_the_same_bytes(entry: Entry, tmp_path: Path) -> None:
    """From the runs in results/, of which the best is the only one with its net."""
    shipped = (WEIGHTS / entry.file).parent
    assert pack([*reversed(runs_of(entry)[1:]), shipped], tmp_path) == entry
    assert zoo.entries(tmp_path) == [entry]
    for file in shipped.iterdir():
        assert (tmp_path / shipped.name / file.name).read_bytes() == file.read_bytes(), file.name


@every_net
def test_the_card(entry: Entry) -> None:
    text = (WEIGHTS / entry.file).with_name("MODEL_CARD.md").read_text()
    accuracy = json.loads(re.search(r"^model-index: (.*)$", text, re.MULTILINE)[1])
    (metric,) = accuracy[0]["results"][0]["metrics"]
    assert metric["value"] == pytest.approx(1 - entry.test_error / 100)
    assert f"**{entry.test_error:.2f} %**" in text and f"--model {entry.name} " in text
    assert "/work/" not in text and "/root/" not in text  # no folders of the machine that made it
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    values = {"images": np.zeros((2, 32, 32, 3), np.uint8)}
    exec(code, values)
    assert values["probabilities"].shape == (2, 10)


def test_other_image_sizes_take_the_weights() -> None:
    net = keras_resnet.resnet(depth=20, weights="cifar10")
    large = keras_resnet.resnet(depth=20, weights="cifar10", input_shape=(48, 64, 3))
    np.testing.assert_array_equal(large.get_weights()[0], net.get_weights()[0])
    assert large.predict(np.zeros((1, 48, 64, 3), np.uint8), verbose=0).shape == (1, 10)


@pytest.mark.parametrize(
    ("options", "received"),
    [
        ({"depth": 26}, "Received: resnet(depth=26, weights='cifar10')"),
        ({"weights": "imagenet"}, "Received: resnet(depth=20, weights='imagenet')"),
        ({"shortcut": "zeropad-maxpool"}, "zeropad-maxpool"),
        ({"num_classes": 100}, "num_classes 10 in the file, 100 here"),
        ({"mean": (0, 0, 0), "std": (255, 255, 255)}, "mean and std [["),
        ({"input_shape": (32, 32, 4), "mean": (1,) * 4, "std": (1,) * 4}, "mean and std [["),
        ({"depth": 21}, "nearest: 20, 26"),
    ],
)
def test_nets_that_the_weights_do_not_fit_are_refused(
    options: dict[str, object], received: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(received)):
        keras_resnet.resnet(**{"weights": "cifar10", **options})


def test_weights_of_a_file(tmp_path: Path) -> None:
    """Of a net as it was trained, and of its stock form; of a run folder; and of another net."""
    net = keras_resnet.resnet(8, shortcut="projection", num_classes=3, seed=5)
    net.save(tmp_path / "trained.keras")
    stock(net).save(tmp_path / "model.keras")
    for weights in (tmp_path / "trained.keras", str(tmp_path / "model.keras"), tmp_path):
        copy = keras_resnet.resnet(8, shortcut="projection", num_classes=3, weights=weights)
        for a, b in zip(copy.get_weights(), net.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="depth 8 in the file, 14 here; shortcut projection in"):
        keras_resnet.resnet(14, num_classes=3, weights=tmp_path)


def test_editors_show_the_signature() -> None:
    parameters = inspect.signature(keras_resnet.resnet).parameters
    assert [*parameters][:3] == ["depth", "weights", "shortcut"] and "options" not in parameters


def test_an_unknown_combination_names_the_known_ones() -> None:
    for build, options in (
        (keras_resnet.plain, {"depth": 8}),
        (keras_resnet.resnet, {"depth": 1202}),
        (keras_resnet.resnet, {"weights": "imagenet"}),
    ):
        with pytest.raises(ValueError, match="leave weights out") as error:
            build(**{"weights": "cifar10", **options})
        for entry in NETS:
            assert f"{entry.model}(depth={entry.depth}, weights='cifar10')" in str(error.value)


_WITHOUT_NETWORK = """\
import os, sys
sys.path.insert(0, sys.argv[1])
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        os._exit(99)
sys.addaudithook(refuse)
import keras_resnet; classifier = keras_resnet.Classifier.load(sys.argv[2])
probabilities = classifier.predict(sys.argv[3])
print(classifier.class_names[probabilities[0].argmax()])
"""


def test_two_lines_classify_an_image_from_anywhere_without_network(tmp_path: Path) -> None:
    deepest = max(NETS, key=lambda entry: (entry.model == "resnet", entry.depth))
    ship = REPOSITORY / "examples" / "ship.png"
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NETWORK, str(REPOSITORY), deepest.name, str(ship)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stdout == "ship\n", done.stderr


def test_a_wheel_has_room_for_it() -> None:
    """A wheel is a zip archive of the package: with all nets below 20 MB."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in (REPOSITORY / "keras_resnet").rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                wheel.write(path)
    assert len(archive.getvalue()) < 20e6
