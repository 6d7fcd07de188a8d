"""Checkpoints without training: whatever is damaged is noticed, and never as a traceback."""

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

REPOSITORY = Path(__file__).resolve().parents[2]
ARRAYS = {"net/a": np.arange(6, dtype=np.float32), "random/0": np.array([1, 2], np.uint32)}


def state_of(step: int) -> State:
    """What a checkpoint holds besides arrays."""
    return {"step": step, "rows": [], "seconds": 1.5, "timed": step}


def test_a_checkpoint_comes_back_exactly(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, ARRAYS, state_of(7))
    path = checkpoint.list_checkpoints(tmp_path)[0]
    arrays, state = checkpoint.load(path)
    assert state == state_of(7) and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_checkpoints_of_more_digits_are_newer(tmp_path: Path) -> None:
    for step in (99_999_500, 100_000_000):
        checkpoint.save(tmp_path, ARRAYS, state_of(step))
    newest = checkpoint.list_checkpoints(tmp_path)[0]
    assert newest.name == "step-100000000.npz"


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, ARRAYS, state_of(step))
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == [
        "step-00000015.npz",
        "step-00000010.npz",
    ]


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Data or headers: either ValueError, or exactly what was saved (unused header fields)."""
    checkpoint.save(tmp_path, ARRAYS, state_of(1))
    path = checkpoint.list_checkpoints(tmp_path)[0]
    whole = path.read_bytes()
    noticed = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x01
        path.write_bytes(damaged)
        try:
            arrays, state = checkpoint.load(path)
        except ValueError:
            noticed += 1
        else:
            assert state == state_of(1)
            assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)
    assert noticed > len(whole) / 2


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, ARRAYS, state_of(1))
    path = checkpoint.list_checkpoints(tmp_path)[0]
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError):
            checkpoint.load(path)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.npz"
    np.savez(path, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError):
        checkpoint.load(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(UserError, match="could not be written"), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_one_process_holds_a_folder(tmp_path: Path) -> None:
    with files.lock(tmp_path):
        code = (
            "import sys; from pathlib import Path; from keras_resnet.runs import files;"
            "files.lock(Path(sys.argv[1])).__enter__()"
        )
        again = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert "another process is training in" in again.stderr
    with files.lock(tmp_path):
        pass


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, ARRAYS, state_of(1))
    path = checkpoint.list_checkpoints(tmp_path)[0]
    path.unlink()
    path.mkdir()  # as mode 0, which does not stop root
    with pytest.raises(UserError, match=r"could not be read \(Is a directory\)"):
        checkpoint.load_newest(tmp_path)
