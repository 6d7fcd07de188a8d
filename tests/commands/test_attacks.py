"""Input that nobody should give and somebody will: one line, exit code 2, nothing overwritten or hung."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_resnet.data import synthetic
from tests.helpers import REPOSITORY, call

Capture = pytest.CaptureFixture[str]
GOLDEN = REPOSITORY / "tests/golden/resnet8_split.safetensors"
FLAGS = [
    "--depth", "8", "--dataset", "synthetic", "--val-size", "100", "--batch-size", "8", "--steps", "8",
    "--eval-every", "2", "--checkpoint-every", "4", "--name", "x",
]  # fmt: skip


def train(folder: Path, *flags: object) -> int:
    return call("train", *FLAGS, "--output-dir", folder.parents[1], *flags)


def assert_one_line(capsys: Capture, *parts: str) -> None:
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and "\x1b" not in error, error
    for part in parts:
        assert part in lines[0]


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 8 updates."""
    folder = tmp_path_factory.mktemp("runs") / "x" / "seed-0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SYNTHETIC_SIZES", (2_000, 500))
        assert train(folder) == 0
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that may be damaged, in the working directory."""
    monkeypatch.setattr(synthetic, "SYNTHETIC_SIZES", (2_000, 500))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, tmp_path / "x" / "seed-0")
    return tmp_path / "x" / "seed-0"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("report x/seed-0 --output x/seed-0", "--output must not be the folder of a run"),
        (f"convert {GOLDEN} --depth 8 --output x/seed-0/model.keras", "--output must not be the folder"),
        ("export x/seed-0 --formats onnx --output x/seed-0", "would be replaced, but holds"),
        ("export x/seed-0 --formats onnx --output /", "--output"),
        ("export x/seed-0 --formats onnx --output loop", "could not be written"),
    ],
)  # fmt: skip
def test_what_would_overwrite_a_run_or_cannot_be_written(
    command: str, told: str, run: Path, capsys: Capture
) -> None:
    Path("loop").symlink_to("loop")
    before = contents(run)
    assert call(*command.split()) == 2
    assert_one_line(capsys, told)
    assert contents(run) == before


@pytest.mark.parametrize("command", ["train", "report"])
@pytest.mark.parametrize(
    ("name", "edit", "told"),
    [
        ("config.json", lambda c: c.update(settings=[1]), "settings"),
        ("config.json", lambda c: c.update(precision="int4"), "precision"),
        ("config.json", lambda c: c["settings"].update(model="config.json\x1b[2J"), "[2J"),
        ("results.json", lambda r: r.update(test_error="8.5"), "test_error"),
    ],
)
def test_json_that_makes_no_sense_is_named(
    command: str, name: str, edit: Callable[[Any], object], told: str, run: Path, capsys: Capture
) -> None:
    value = json.loads((run / name).read_text())
    edit(value)
    (run / name).write_text(json.dumps(value))
    before = contents(run)
    code = train(run) if command == "train" else call("report", run, "--output", run.parent / "r")
    assert code == 2
    assert_one_line(capsys, name, told)
    assert contents(run) == before


def test_results_of_another_run_and_a_strange_folder_beside_it(run: Path, capsys: Capture) -> None:
    shutil.copytree(run, run.with_name("seed-²"))
    assert train(run) == 0
    assert json.loads(run.with_name("summary.json").read_text())["seeds"] == [0]
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "depth": 20}))
    assert train(run) == 2
    assert_one_line(capsys, "results.json must have depth 8")


def unfinished(run: Path) -> Path:
    """The same run, stopped at update 4."""
    for name in ("results.json", "model.keras", "checkpoints/step-00000008.npz"):
        (run / name).unlink()
    return run


def save_foreign(path: Path) -> None:
    np.savez(path, state=np.frombuffer(b'{"step":4,"rows":[],"seconds":1}', np.uint8))


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("lock", os.mkfifo, "lock could not be locked"),
        ("lock", lambda path: path.symlink_to("nowhere"), "lock could not be locked"),
        ("metrics.csv", os.mkfifo, "metrics.csv could not be read"),
        ("checkpoints", Path.touch, "checkpoints could not be read (Not a directory)"),
        # As mode 0, which does not stop root.
        ("checkpoints/step-00000004.npz", Path.mkdir, "npz could not be read (Is a directory)"),
        ("checkpoints/step-00000004.npz", save_foreign, "variables differ"),
    ],
)
def test_what_cannot_be_read_is_named_and_kept(
    name: str, make: Callable[[Path], object], told: str, run: Path, capsys: Capture
) -> None:
    shutil.rmtree(unfinished(run) / "tensorboard")
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    make(run / name)
    assert train(run) == 2
    assert_one_line(capsys, told)
    assert not (run / "tensorboard").exists()


def test_a_resume_without_config_keeps_the_settings_of_its_checkpoint(
    run: Path, capsys: Capture
) -> None:
    (unfinished(run) / "config.json").unlink()
    before = contents(run)
    assert train(run, "--learning-rate", 0.05) == 2
    assert_one_line(capsys, "--learning-rate 0.1 there, 0.05 now")
    assert contents(run) == before


def test_complex_tensors_are_refused(tmp_path: Path, capsys: Capture) -> None:
    save_file({"conv.weight": np.zeros((16, 3, 3, 3), np.complex64)}, tmp_path / "c.safetensors")
    flags = ["--depth", 8, "--output", tmp_path / "net.keras"]
    assert call("convert", tmp_path / "c.safetensors", *flags) == 2
    assert_one_line(capsys, "complex64")
