"""Input that nobody should give and somebody will: one line, exit code 2, nothing overwritten or hung."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_resnet.runs import checkpoint
from tests.helpers import GOLDEN, SMALL, contents, train

pytestmark = pytest.mark.usefixtures("small_synthetic")
EVERY = ("--eval-every=2", "--checkpoint-every=4")
COMMANDS = {
    "train": ["train", *SMALL, *EVERY, "--output-dir=."],
    "report": ["report", "x/seed-0", "--output=report"],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_synthetic):
    """A finished run of 8 updates."""
    output = tmp_path_factory.mktemp("runs")
    assert train(output, *EVERY) == 0
    return output / "x/seed-0"


@pytest.fixture
def run(whole, tmp_path, monkeypatch):
    """A copy of it that may be damaged, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(whole, tmp_path / "x/seed-0")


@pytest.fixture
def unfinished(run):
    """The same run, stopped at update 4."""
    for name in ("results.json", "model.keras", "checkpoints/step-00000008.npz"):
        (run / name).unlink()
    shutil.rmtree(run / "tensorboard")
    return run


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("report x/seed-0 --output x/seed-0", "--output must not be the folder of a run"),
        ("report x/seed-0 --output site", "whose index.html would be replaced"),
        ("report x/seed-0 --output notes", "whose results.md would be replaced"),
        (f"report {'x' * 300}", "x could not be read or written (File name too long)"),
        (f"convert {GOLDEN}/resnet8_split.safetensors --output x/seed-0/model.keras", "--output must not"),
        ("export x/seed-0 --formats onnx --output x/seed-0", "would be replaced, but holds"),
        ("export x/seed-0 --formats onnx --output /", "must be a folder of its own"),
        ("export x/seed-0 --formats onnx --output loop", "could not be written"),
    ],
)  # fmt: skip
def test_what_would_overwrite_a_run_or_cannot_be_written(command, told, run, refused):
    Path("loop").symlink_to("loop")
    for file in map(Path, ("site/index.html", "notes/results.md")):
        file.parent.mkdir()
        file.write_text("mine")
    before = contents(run)
    assert told in refused(*command.split())
    assert contents(run) == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("name", "edit", "told"),
    [
        ("config.json", lambda c: c.update(settings=[1]), "settings"),
        ("config.json", lambda c: c.update(precision="int4"), "precision"),
        ("config.json", lambda c: c["settings"].update(model="config.json\x1b[2J"), "[2J"),
        ("results.json", lambda r: r.update(test_error="8.5"), "test_error"),
        ("results.json", dict.clear, "results.json"),
    ],
)
def test_json_that_makes_no_sense_is_named(command, name, edit, told, run, refused):
    value = json.loads((run / name).read_text())
    edit(value)
    (run / name).write_text(json.dumps(value))
    before = contents(run)
    error = refused(*COMMANDS[command])
    assert name in error and told in error
    assert contents(run) == before


def test_results_of_another_run_and_a_strange_folder_beside_it(run, refused):
    shutil.copytree(run, run.with_name("seed-²"))
    assert train(".", *EVERY) == 0
    assert json.loads(run.with_name("summary.json").read_text())["seeds"] == [0]
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "depth": 20}))
    for command in COMMANDS.values():
        assert "results.json must have depth 8" in refused(*command)


def test_another_seed_and_a_net_alone_are_not_trained_over(unfinished, refused):
    unfinished.rename(unfinished.with_name("seed-1"))
    error = refused(*COMMANDS["train"], "--seed=1")
    assert "--seed 0 there, 1 now" in error
    alone = unfinished.with_name("seed-2") / "model.keras"
    alone.parent.mkdir()
    alone.write_text("mine")
    assert "has no config.json" in refused(*COMMANDS["train"], "--seed=2")
    assert alone.read_text() == "mine"


def save_foreign(path):
    np.savez(path, state=np.frombuffer(b'{"step":4,"rows":[],"seconds":1}', np.uint8))


def lose_a_variable(path):
    arrays, state = checkpoint.load(path)
    arrays.pop("net/head_dense/bias")
    checkpoint.save(path.parents[1], arrays, state)


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("lock", os.mkfifo, "lock could not be locked"),
        ("lock", lambda path: path.symlink_to("nowhere"), "lock could not be locked"),
        ("metrics.csv", os.mkfifo, "metrics.csv could not be read"),
        (
            "metrics.csv",
            lambda path: path.write_text("step\nthree\n"),
            "must be as train writes it",
        ),
        ("checkpoints", Path.touch, "checkpoints could not be read (Not a directory)"),
        # As mode 0, which does not stop root.
        ("checkpoints/step-00000004.npz", Path.mkdir, "npz could not be read (Is a directory)"),
        ("checkpoints/step-00000004.npz", save_foreign, "variables differ"),
        ("checkpoints/step-00000004.npz", lose_a_variable, "does not fit this version"),
    ],
)
def test_what_cannot_be_read_is_named_and_kept(name, make, told, unfinished, refused):
    path = unfinished / name
    if make is not lose_a_variable:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)
    assert told in refused(*COMMANDS["train"])
    assert not (unfinished / "tensorboard").exists()


def test_a_resume_without_config_keeps_the_settings_of_its_checkpoint(unfinished, refused):
    (unfinished / "config.json").unlink()
    before = contents(unfinished)
    error = refused(*COMMANDS["train"], "--learning-rate=0.05")
    assert "--learning-rate 0.1 there, 0.05 now" in error
    assert contents(unfinished) == before
