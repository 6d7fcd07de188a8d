"""What `--model` and `export` take: names of the zoo, run folders and files; and damaged nets of the zoo."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_resnet
from keras_resnet.__main__ import main
from keras_resnet.commands import terminal
from keras_resnet.errors import UserError
from keras_resnet.inference import zoo
from keras_resnet.inference.zoo import WEIGHTS

RESNET20 = next(entry for entry in zoo.entries() if entry.name == "resnet20")
NAMES = ", ".join(entry.name for entry in zoo.entries())


def call(*arguments: object) -> int:
    try:
        return terminal.run(lambda: main([str(a) for a in arguments]))
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A picture in the working directory, which is an empty folder otherwise."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((40, 30, 3), 128, np.uint8)).save("gray.png")
    return "gray.png"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The zoo, in a folder where it may be damaged."""
    weights = tmp_path / "weights"
    shutil.copytree(WEIGHTS, weights)
    monkeypatch.setattr(zoo, "WEIGHTS", weights)
    return weights


def test_predict_takes_a_name_or_none(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for model in ([], ["--model", "resnet20"], ["--model", WEIGHTS / "resnet20-cifar10"]):
        assert call("predict", picture, *model) == 0
        lines.append(capsys.readouterr().out)
    assert re.match(r"gray\.png: \w+ [\d.]+ %, ", lines[0])
    assert len(set(lines)) == 1


def test_evaluate_takes_a_name(capsys: pytest.CaptureFixture[str], data_dir: str) -> None:
    assert call("evaluate", "--model", "resnet20", "--data-dir", data_dir, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dataset"] == "cifar10"
    assert found["error"] == pytest.approx(RESNET20.test_error, abs=0.021)


def test_export_takes_a_name_and_writes_here(
    picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in WEIGHTS.rglob("*"))
    assert call("export", "resnet20", "--formats", "onnx", "--data-dir", tmp_path) == 0
    assert "wrote resnet20-export" in capsys.readouterr().out
    assert sorted(path.name for path in WEIGHTS.rglob("*")) == before
    exported = keras_resnet.Classifier.load("resnet20-export/model.onnx")
    np.testing.assert_allclose(
        exported.predict(picture),
        keras_resnet.Classifier.load("resnet20").predict(picture),
        atol=1e-4,
    )
    facts = json.loads(Path("resnet20-export/export.json").read_text())
    assert facts["training"]["results"]["test_error"] == RESNET20.test_error


def test_what_lies_in_the_working_directory_comes_first(
    picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    net = keras_resnet.resnet(8)
    Path("resnet20").mkdir()
    net.save("resnet20/model.keras")
    assert call("predict", "--json", "--model", "resnet20", picture) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "resnet20/model.keras"
    assert call("predict", "--json", picture) == 0  # what is not named is the zoo's
    assert json.loads(capsys.readouterr().out)["model"] == str(WEIGHTS / RESNET20.file)
    assert keras_resnet.Classifier.load().path == WEIGHTS / RESNET20.file
    assert call("export", "resnet20", "--formats", "onnx") == 0
    assert Path("resnet20/export/model.onnx").is_file() and not Path("resnet20-export").exists()


@pytest.mark.parametrize(
    "name", ["resnet21", "ResNet-20", "./resnet20", "resnet20/", "resnet20.keras"]
)
def test_an_unknown_name_is_one_line_that_names_the_known(
    name: str, picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["predict", picture, "--model", name],
        ["evaluate", "--model", name],
        ["export", name],
    ):
        assert call(*arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"Received: {name}, which does not exist" in error
        assert f"({NAMES})" in error and "a run folder" in error and ".keras file" in error
    assert [path.name for path in tmp_path.iterdir()] == [picture]


def test_models_lists_the_trained_nets(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for entry, line in zip(zoo.entries(), lines[1:], strict=False):
        assert line.split() == [
            entry.name, f"{entry.parameters:,}", entry.dataset, entry.recipe, f"{entry.steps:,}",
            str(entry.seed), f"{entry.val_error:.2f}", f"{entry.test_error:.2f}", entry.commit[:7],
        ]  # fmt: skip
    assert call("models", "--depth", 8, "--model", "plain") == 0
    assert "stage3_block1_conv2" in capsys.readouterr().out
    assert call("models", "--model", "plain") == 2
    assert "add --depth" in capsys.readouterr().err


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_one_flipped_bit_is_refused(copy: Path) -> None:
    """Also one that no zip archive would tell, in a date or a comment."""
    file = copy / RESNET20.file
    whole = file.read_bytes()
    assert zoo.resolve("resnet20") == file.parent
    for at in (10, len(whole) // 2, len(whole) - 1):
        flip(file, at)
        with pytest.raises(UserError, match=r"resnet20 of the zoo, is damaged.*install"):
            zoo.resolve("resnet20")
        file.write_bytes(whole)
    assert zoo.resolve() == file.parent
    file.unlink()
    with pytest.raises(UserError, match="is missing"):
        zoo.resolve()


def test_a_damaged_net_is_one_line(
    copy: Path, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(copy / RESNET20.file, 10)
    for arguments in (
        ["predict", picture],
        ["predict", picture, "--model", "resnet20"],
        ["evaluate", "--model", "resnet20"],
        ["export", "resnet20"],
    ):
        assert call(*arguments) == 2, arguments
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "is damaged: its SHA-256" in error
    for load in (
        lambda: keras_resnet.Classifier.load("resnet20"),
        lambda: keras_resnet.resnet(depth=20, weights="cifar10"),
    ):
        with pytest.raises(UserError, match="is damaged"):
            load()


def test_a_damaged_registry_is_one_line(copy: Path) -> None:
    for content in ("{", '{"nets": [{"name": "resnet20"}]}'):
        (copy / zoo.FILE).write_text(content)
        with pytest.raises(UserError, match=r"registry\.json could not be read"):
            zoo.entries()
    (copy / zoo.FILE).unlink()
    with pytest.raises(UserError, match=r"registry\.json must list .* missing"):
        zoo.entries()
