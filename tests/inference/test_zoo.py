"""The trained nets: every one is the run in results/ and has its error; names and weights; damaged files."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shlex
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.inference import zoo
from keras_resnet.inference.open import load_keras
from keras_resnet.inference.pretrained import load_trained
from keras_resnet.inference.zoo import WEIGHTS
from keras_resnet.nets.stock import stock
from keras_resnet.runs.folder import RunFolder
from keras_resnet.runs.resume import upgrade
from tests.helpers import REPOSITORY, call
from tools.publish import card, pack

NETS = zoo.entries()
RESNET20 = next(entry for entry in NETS if entry.name == "resnet20")
NAMES = ", ".join(entry.name for entry in NETS)

every_net = pytest.mark.parametrize("entry", NETS, ids=lambda entry: entry.name)


def runs_of(entry):
    """The folders in results/ of the runs that a net was chosen from, in the registry's order."""
    found = {}
    for path in (REPOSITORY / "results").glob("*/seed-*/results.json"):
        results = RunFolder(path.parent).read_results()
        config = RunFolder(path.parent).read_config()
        usual = {**results, "recipe": upgrade(config["settings"])["recipe"]}
        if (results.get("model"), results.get("depth")) == (entry.model, entry.depth):
            key = usual["recipe"], usual["steps"], usual["seed"], usual["val_error"]
            found[key] = path.parent
    return [found[dataclasses.astuple(candidate)] for candidate in entry.candidates]


def test_the_registry_lists_what_is_there():
    assert keras_resnet.zoo.list() == NETS
    assert {WEIGHTS / entry.file for entry in NETS} == {*WEIGHTS.glob("*/model.keras")}
    assert zoo.DEFAULT in {entry.name for entry in NETS}


@every_net
def test_its_error_on_cifar10_is_that_of_the_registry(entry, cifar10):
    classifier = keras_resnet.Classifier.load(entry.name)
    assert classifier.class_names == cifar10.class_names
    result = keras_resnet.evaluate(classifier, cifar10.test_images, cifar10.test_labels)
    # float16 changed some classes, and another CPU's kernels may turn two images that are on the edge.
    images = 2 + (entry.changed_classes or 0)
    assert result.error == pytest.approx(entry.test_error, abs=0.01 * images + 0.001)


@every_net
def test_publishing_it_again_gives_the_same_bytes(entry, tmp_path):
    """From the runs in results/, of which the best is the only one with its net: nothing was typed."""
    shipped = (WEIGHTS / entry.file).parent
    runs = runs_of(entry)
    config, results = RunFolder(runs[0]).read_config(), RunFolder(runs[0]).read_results()
    assert RunFolder(shipped).read_config() == config
    assert RunFolder(shipped).read_results() == results
    assert (shipped / "MODEL_CARD.md").read_text() == card(entry, config, results)
    assert pack([*reversed(runs[1:]), shipped], tmp_path) == entry
    assert zoo.entries(tmp_path) == (entry,)
    for file in shipped.iterdir():
        assert (tmp_path / shipped.name / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_page_of_trained_nets_has_the_numbers_of_the_registry():
    page = (REPOSITORY / "docs/zoo.md").read_text()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-2]] for line in page.splitlines()]
    for entry in NETS:
        runs = len(entry.candidates)
        val_error = "-" if entry.val_error is None else f"{entry.val_error:.2f}"
        errors = [val_error, f"{entry.test_error:.2f}"]
        chosen = f"{runs} run{'s' * (runs > 1)}"
        numbers = [f"{entry.steps:,}", str(entry.seed), *errors, str(entry.changed_classes), chosen]
        assert [entry.name, entry.recipe, *numbers] in rows


def test_a_run_of_changed_code_is_not_published(tmp_path):
    run = shutil.copytree((WEIGHTS / RESNET20.file).parent, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "git_commit": "0" * 40 + "+changes"}))
    with pytest.raises(UserError, match=r"\+changes' in config\.json"):
        pack([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_on_all_images_comes_before_the_others(tmp_path):
    entry = next(entry for entry in NETS if entry.name == "resnet32")
    shipped = (WEIGHTS / entry.file).parent
    run = shutil.copytree(shipped, tmp_path / "run")
    config, results = (
        json.loads((run / f"{name}.json").read_text()) for name in ("config", "results")
    )
    config["settings"] |= {"val_size": 0, "steps": 32_000, "warmup_steps": 2_000, "crop_padding": 3}
    (run / "config.json").write_text(json.dumps(config))
    (run / "results.json").write_text(json.dumps({**results, "val_error": None, "steps": 32_000}))
    found = pack([shipped, run], tmp_path / "out")
    assert (found.steps, found.val_error, len(found.candidates)) == (32_000, None, 2)
    text = (tmp_path / "out/resnet32-cifar10/MODEL_CARD.md").read_text()
    command = "--recipe fast --depth 32 --steps 32000 --crop-padding 3 --val-size 0\n"
    assert f"    python train.py {command}" in text
    assert "all 50,000 training images" in text and "| `fast` | 32,000 | 0 | - |" in text


@pytest.mark.slow
def test_float16_kernels_unless_they_change_the_classes(tmp_path, monkeypatch, data_dir):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    run = shutil.copytree((WEIGHTS / RESNET20.file).parent, tmp_path / "run")
    net = load_keras(run)
    net.save(run / "model.keras")
    assert pack([run], tmp_path / "half").changed_classes == 0  # its kernels were float16 before
    assert h5_types(tmp_path / "half") == {4: {"float16"}, 2: {"float16"}, 1: {"float32"}}
    pack([run], tmp_path / "again")
    files = [tmp_path / name / "resnet20-cifar10/model.keras" for name in ("half", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    head = net.get_layer("head_dense")
    nearly_equal = 1 + np.random.default_rng(0).normal(0, 1e-4, (64, 10))  # float16 rounds to 1e-3
    head.set_weights([nearly_equal, np.zeros(10)])
    net.save(run / "model.keras")
    assert pack([run], tmp_path / "whole").changed_classes is None
    assert set().union(*h5_types(tmp_path / "whole").values()) == {"float32"}
    assert load_keras(tmp_path / "whole/resnet20-cifar10").get_weights()[-2].std() < 2e-4


def h5_types(folder):
    """Number of dimensions -> dtypes of the weights in the file of ResNet-20."""
    with zipfile.ZipFile(folder / "resnet20-cifar10/model.keras") as archive:
        data = io.BytesIO(archive.read("model.weights.h5"))
    types = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            types.setdefault(item.ndim, set()).add(str(item.dtype))

    with h5py.File(data) as file:
        file.visititems(note)
    return types


@every_net
def test_its_size_and_the_snippet_of_its_card(entry):
    stored = load_keras(WEIGHTS / entry.file)
    assert (WEIGHTS / entry.file).stat().st_size < 2.3 * entry.parameters
    text = (WEIGHTS / entry.file).with_name("MODEL_CARD.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    values = {"images": np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)}
    exec(code, values)
    paths = [w.path for w in stored.weights if "shortcut" not in w.path]  # a fixed kernel there
    assert [w.path for w in values["net"].weights] == paths
    expected = stored.predict_on_batch(values["images"])
    np.testing.assert_array_equal(values["probabilities"], expected)


def test_nets_that_the_weights_do_not_fit_are_refused():
    for options, received in (
        ({"depth": 26}, f"a trained net ({NAMES})"),
        ({"weights": "cifar100"}, "Received: cifar100, which does not exist"),
        ({"shortcut": "zeropad-maxpool"}, "shortcut zeropad in the file, zeropad-maxpool here"),
        ({"weights": "resnet56"}, "depth 56 in the file, 20 here"),
        ({"mean": (0, 0, 0), "std": (255, 255, 255)}, "mean and std are those of the weights"),
    ):
        with pytest.raises(ValueError, match=re.escape(received)):
            keras_resnet.resnet(**{"weights": "cifar10", **options})


def test_a_trunk_with_a_new_head(tmp_path, capsys):
    """Of a trained net, and of a file; mean, std and image size are the file's where none are given."""
    trunk = keras_resnet.resnet(8, mean=(1, 2, 3), std=(4, 5, 6), input_shape=(16, 16, 3))
    trunk.save(tmp_path / "own.keras")
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    for depth, weights in ((8, tmp_path / "own.keras"), (20, "cifar10")):
        shape = (16, 16, 3) if weights == "cifar10" else None
        whole = keras_resnet.resnet(depth, weights=weights, input_shape=shape)
        features = keras_resnet.resnet(depth, weights=weights, input_shape=shape, include_top=False)
        assert capsys.readouterr().out == ""
        net = keras_resnet.resnet(depth, weights=weights, num_classes=5, input_shape=shape, seed=3)
        assert "its dense layer is new, for 5 classes" in capsys.readouterr().out
        assert net.output_shape == (None, 5) and features.output_shape == (None, 64)
        expected = features.predict_on_batch(images)
        for other in (whole, net):
            pooled = keras.Model(other.input, other.get_layer("head_pool").output)
            np.testing.assert_array_equal(pooled.predict_on_batch(images), expected)
        new = keras_resnet.resnet(depth, num_classes=5, seed=3).get_layer("head_dense")
        np.testing.assert_array_equal(net.get_layer("head_dense").kernel, new.kernel)
    again = load_trained("resnet20", 10, new_head=True)
    assert "for 10 classes" in capsys.readouterr().out
    assert np.abs(again.get_layer("head_dense").bias).max() == 0
    foreign = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    foreign.save(tmp_path / "foreign.keras")
    with pytest.raises(UserError, match="must be those of a resnet or plain net"):
        load_trained(tmp_path / "foreign.keras")


def test_weights_of_a_file(tmp_path):
    """Of a net as it was trained, and of its stock form; of a run folder; and of another net."""
    options = {"shortcut": "projection", "num_classes": 3}
    net = keras_resnet.resnet(8, **options, seed=5)
    net.save(tmp_path / "trained.keras")
    stock(net).save(tmp_path / "model.keras")
    for weights in (tmp_path / "trained.keras", str(tmp_path / "model.keras"), tmp_path):
        copy = keras_resnet.resnet(8, **options, input_shape=(48, 64, 3), weights=weights)
        assert copy.input_shape == (None, 48, 64, 3)
        for a, b in zip(copy.get_weights(), net.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="depth 8 in the file, 14 here; shortcut projection in"):
        keras_resnet.resnet(14, num_classes=3, weights=tmp_path)


@pytest.mark.slow
def test_the_page_of_trained_nets_word_for_word(tmp_path, monkeypatch, capsys, data_dir):
    """Its Python and its commands; its net with a new head is evaluated, exported, and a trunk again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    Path("examples").symlink_to(REPOSITORY / "examples")
    Path("experiments/resnet20-mine/seed-0").mkdir(parents=True)
    keras_resnet.resnet(20).save("experiments/resnet20-mine/seed-0/model.keras")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8), np.arange(30) % 3
    np.savez("own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    page, values = (REPOSITORY / "docs/zoo.md").read_text(), {"images": images, "labels": labels}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, values)
    commands = re.findall(r"^keras-resnet (.*)$", page, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        assert call(*shlex.split(command, comments=True)) == 0, command
    facts = json.loads(Path("resnet20-export/export.json").read_text())
    assert facts["training"]["results"]["test_error"] == RESNET20.test_error
    assert call("evaluate", "--model", "mine.keras", "--dataset", "own.npz") == 0
    assert call("export", "mine.keras", "--formats", "onnx") == 0
    expected = keras.ops.softmax(values["mine"].predict(images, verbose=0))
    for name in ("mine.keras", "mine-export/model.onnx"):
        probabilities = keras_resnet.Classifier.load(name).predict(images)
        np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    again = load_trained("mine.keras")
    assert "its dense layer is new, for 3 classes" in capsys.readouterr().out
    np.testing.assert_array_equal(again.get_weights()[0], values["mine"].get_weights()[0])


def test_an_unknown_name_is_one_line_that_names_the_known(tmp_path, monkeypatch, refused):
    """And what lies in the working directory comes first."""
    monkeypatch.chdir(tmp_path)
    for words in ("predict . --model resnet21", "evaluate --model ./resnet20", "export resnet21"):
        error = refused(*words.split())
        assert f"Received: {words.split()[-1]}, which does not exist" in error
        assert all(text in error for text in (f"({NAMES})", "a run folder", ".keras file"))
    assert not any(tmp_path.iterdir())
    Path("resnet20").mkdir()
    keras_resnet.resnet(8).save("resnet20/model.keras")
    assert keras_resnet.Classifier.load("resnet20").path == Path("resnet20/model.keras")
    assert keras_resnet.Classifier.load().path == WEIGHTS / RESNET20.file


def test_models_lists_the_trained_nets(capsys):
    assert call("models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for entry, line in zip(NETS, lines[1:], strict=False):
        assert {entry.name, f"{entry.parameters:,}", f"{entry.test_error:.2f}"} <= {*line.split()}


def test_one_flipped_bit_is_refused(tmp_path, monkeypatch):
    """Also one that no zip archive would notice, in a date or a comment."""
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    (tmp_path / zoo.FILE).write_bytes((WEIGHTS / zoo.FILE).read_bytes())
    file = tmp_path / RESNET20.file
    file.parent.mkdir()
    whole = (WEIGHTS / RESNET20.file).read_bytes()
    for at in (10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        for load in (keras_resnet.Classifier.load, lambda: keras_resnet.resnet(weights="cifar10")):
            with pytest.raises(UserError, match=r"resnet20, is damaged.*install"):
                load()
    file.write_bytes(whole)
    assert zoo.resolve() == file.parent
