"""The ResNet-20 that comes with the package: it is the one in results/, and opens without a path."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_resnet
from keras_resnet.commands import evaluate as evaluate_command
from keras_resnet.commands import predict as predict_command
from keras_resnet.commands import publish, terminal
from keras_resnet.inference.classifier import Classifier
from keras_resnet.inference.evaluation import evaluate
from keras_resnet.inference.keras_file import load_keras
from keras_resnet.runs.folder import RunFolder
from keras_resnet.zoo import registry
from keras_resnet.zoo.publish import card, pack

SHIPPED = json.loads((registry.FOLDER / "results.json").read_text())

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def net():
    return keras_resnet.resnet(depth=20, weights="cifar10")


def test_the_weights_are_compact_float32(net):
    assert (registry.FOLDER / "model.keras").stat().st_size < 1_150_000
    stored = load_keras(registry.FOLDER)
    assert {weight.dtype for weight in stored.weights} == {"float32"}
    assert net.count_params() == 271_098  # 269,722 and the running statistics
    assert [w.path for w in net.weights] == [w.path for w in stored.weights]
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(net.predict_on_batch(images), stored.predict_on_batch(images))


def test_the_run_is_one_of_results():
    """config.json, results.json and the card say what results/ says: nothing was typed."""
    same = [
        folder
        for path in (REPOSITORY / "results").glob("*/seed-*/results.json")
        if json.loads(path.read_text()) == SHIPPED
        and RunFolder(folder := path.parent).read_config()
        == RunFolder(registry.FOLDER).read_config()
    ]
    assert len(same) == 1
    config = RunFolder(registry.FOLDER).read_config()
    text = (registry.FOLDER / "MODEL_CARD.md").read_text()
    assert text == card(config, SHIPPED)
    assert f"**{SHIPPED['test_error']:.2f} %**" in text


def test_its_error_on_cifar10_is_the_reported_one(cifar10):
    classifier = Classifier.load()
    assert classifier.class_names == cifar10.class_names
    result = evaluate(classifier, cifar10.test_images, cifar10.test_labels)
    # Another CPU's kernels may turn two images that are on the edge of two classes.
    assert result.error == pytest.approx(SHIPPED["test_error"], abs=0.021)


def test_other_image_sizes_take_the_weights(net):
    large = keras_resnet.resnet(depth=20, weights="cifar10", input_shape=(48, 64, 3))
    np.testing.assert_array_equal(large.get_weights()[0], net.get_weights()[0])
    assert large.predict(np.zeros((1, 48, 64, 3), np.uint8), verbose=0).shape == (1, 10)


@pytest.mark.parametrize(
    ("options", "received"),
    [
        ({"depth": 32}, "depth=32"),
        ({"shortcut": "zeropad-maxpool"}, "zeropad-maxpool"),
        ({"num_classes": 100}, "100 classes"),
        ({"mean": (0, 0, 0), "std": (255, 255, 255)}, "no data set of ours"),
        ({"weights": "imagenet"}, "'imagenet'"),
        ({"input_shape": (32, 32, 4), "mean": (1,) * 4, "std": (1,) * 4}, "no data set of ours"),
    ],
)
def test_nets_that_the_weights_do_not_fit_are_refused(options, received):
    with pytest.raises(ValueError, match=re.escape(received)):
        keras_resnet.resnet(**{"weights": "cifar10", **options})


def test_predict_needs_no_model(capsys, tmp_path):
    Image.fromarray(np.full((40, 30, 3), 128, np.uint8)).save(tmp_path / "gray.png")
    assert terminal.run(lambda: predict_command.main([str(tmp_path / "gray.png")])) == 0
    assert re.search(r"gray\.png: \w+ [\d.]+ %, ", capsys.readouterr().out)


def test_evaluate_needs_no_model(capsys, data_dir):
    assert terminal.run(lambda: evaluate_command.main(["--data-dir", data_dir, "--json"])) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dataset"] == "cifar10"
    assert found["error"] == pytest.approx(SHIPPED["test_error"], abs=0.021)


def test_the_card():
    text = (registry.FOLDER / "MODEL_CARD.md").read_text()
    accuracy = json.loads(re.search(r"^model-index: (.*)$", text, re.MULTILINE)[1])
    (metric,) = accuracy[0]["results"][0]["metrics"]
    assert metric["value"] == pytest.approx(1 - SHIPPED["test_error"] / 100)
    assert "/work/" not in text and "/root/" not in text  # no folders of the machine that made it
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    values = {"images": np.zeros((2, 32, 32, 3), np.uint8)}
    exec(code, values)
    assert values["probabilities"].shape == (2, 10)


def test_packing_again_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        pack(registry.FOLDER, tmp_path / name)
    for file in registry.FOLDER.iterdir():
        assert (tmp_path / "one" / file.name).read_bytes() == file.read_bytes(), file.name
        assert (tmp_path / "two" / file.name).read_bytes() == file.read_bytes(), file.name


def changed(part, **values):
    """The shipped run's config.json or results.json with other values; None takes a key away."""
    content = json.loads((registry.FOLDER / f"{part}.json").read_text())
    target = content["settings"] if part == "config" and "class_names" not in values else content
    target.update(values)
    return {f"{part}.json": {key: value for key, value in content.items() if value is not None}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (changed("config", learning_rate=3.0), "learning_rate 3.0"),
        (changed("config", dataset="synthetic"), "dataset 'synthetic'"),
        (changed("config", class_names=None), "'class_names'"),
        (changed("results", test_error=None), "'test_error'"),
        (changed("results", git_commit="0" * 40 + "+changes"), "+changes"),
        ({"results.json": []}, "results.json"),
        ({"results.json": None}, "results.json"),
        ({"model.keras": 8}, "depth 8"),
    ],
)
def test_other_runs_are_not_packed(tmp_path, capsys, files, message):
    run = tmp_path / "run"
    shutil.copytree(registry.FOLDER, run)
    for name, content in files.items():
        if name == "model.keras":
            keras_resnet.resnet(content).save(run / name)
        elif content is None:
            (run / name).unlink()
        else:
            (run / name).write_text(json.dumps(content))
    out = tmp_path / "out"
    assert terminal.run(lambda: publish.main([str(run), "--output", str(out)])) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
