"""Checkpoints and locks without training: whatever is damaged is noticed, and never as a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_resnet.errors import UserError
from keras_resnet.runs import checkpoint, files
from keras_resnet.runs.checkpoint import State
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.resume import find_checkpoint
from keras_resnet.runs.run import runs_of

REPOSITORY = Path(__file__).resolve().parents[2]
ARRAYS = {"net/a": np.arange(6, dtype=np.float32), "random/0": np.array([1, 2], np.uint32)}


def save(folder: Path, step: int = 1) -> tuple[Path, State]:
    state: State = {"step": step, "rows": [], "seconds": 1.5, "timed": step}
    checkpoint.save(folder, ARRAYS, state)
    return checkpoint.list_checkpoints(folder)[0], state


def assert_whole(path: Path, state: State) -> None:
    arrays, loaded = checkpoint.load(path)
    assert loaded == state and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_the_newest_two_come_back_exactly(tmp_path: Path) -> None:
    for step in (5, 99_999_500, 100_000_000):
        path, state = save(tmp_path, step)
        assert_whole(path, state)
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == [
        "step-100000000.npz",
        "step-99999500.npz",
    ]


def test_every_damage_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Each flipped byte: either ValueError, or exactly what was saved (unused header fields). Every cut."""
    path, state = save(tmp_path)
    whole = path.read_bytes()
    noticed = 0
    for position in range(0, len(whole), 2):
        damaged = bytearray(whole)
        damaged[position] ^= 0x01
        path.write_bytes(damaged)
        try:
            assert_whole(path, state)
        except ValueError:
            noticed += 1
    assert noticed > len(whole) / 4
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError):
            checkpoint.load(path)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.npz"
    np.savez(path, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError):
        checkpoint.load(path)


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    (run,) = runs_of(TrainConfig(output_dir=tmp_path))
    path, _ = save(run.folder.path)
    path.unlink()
    path.mkdir()  # as mode 0, which does not stop root
    with pytest.raises(UserError, match=r"could not be read \(Is a directory\)"):
        find_checkpoint(run)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(UserError, match="could not be written"), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_one_process_holds_a_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from keras_resnet.runs import files;"
        "files.lock(Path(sys.argv[1])).__enter__()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with files.lock(tmp_path):
        again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert "another process is training in" in again.stderr
    with files.lock(tmp_path):
        pass
