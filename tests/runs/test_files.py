"""Checkpoints, locks and folders: damage is noticed, and what is replaced is replaced whole or not at all."""

import json
import signal

import numpy as np
import pytest

from keras_resnet.errors import UserError
from keras_resnet.runs import checkpoint, files
from tests.helpers import python

ARRAYS = {"net/a": np.arange(6, dtype=np.float32), "random/0": np.array([1, 2], np.uint32)}


def save(folder, step=1):
    state = {"step": step, "rows": [], "seconds": 1.5, "timed": step}
    checkpoint.save(folder, ARRAYS, state)
    return checkpoint.list_checkpoints(folder)[0], state


def assert_whole(path, state):
    arrays, loaded = checkpoint.load(path)
    assert loaded == state and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_the_newest_two_come_back_exactly(tmp_path):
    for step in (5, 99_999_500, 100_000_000):
        path, state = save(tmp_path, step)
        assert_whole(path, state)
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == [
        "step-100000000.npz",
        "step-99999500.npz",
    ]


def test_every_damage_is_noticed_or_harmless(tmp_path):
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


def test_a_pickle_is_never_read(tmp_path):
    path = tmp_path / "step-00000001.npz"
    np.savez(path, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError):
        checkpoint.load(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(UserError, match="could not be written"), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_one_process_holds_a_folder(tmp_path):
    code = (
        "import sys; from pathlib import Path; from keras_resnet.runs import files;"
        "files.lock(Path(sys.argv[1])).__enter__()"
    )
    with files.lock(tmp_path):
        assert "another process is training in" in python("-c", code, tmp_path).stderr
    with files.lock(tmp_path):
        pass


@pytest.mark.parametrize(
    ("renames", "name", "content"),
    [(0, "export", "old"), (1, ".tmp-old-export", "old"), (2, "export", "new")],
)
def test_killed_while_renaming(tmp_path, renames, name, content):
    """SIGKILL before, between and after the two renames: the old folder or the new one, whole."""
    code = f"""
import os, signal
from pathlib import Path
from keras_resnet.runs.files import atomic_folder
rename, left = os.replace, {renames}
def killed(one, other):
    global left
    if left:
        rename(one, other)
        left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
for content in ("old", "new"):
    if content == "new":
        os.replace = killed if left else lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    with atomic_folder(Path("export")) as folder:
        (folder / "export.json").write_text(content)
        (folder / "model").mkdir()
        (folder / "model" / "file").write_text(content)
"""
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / name / "export.json").read_text() == content
    assert (tmp_path / name / "model" / "file").read_text() == content
    # The next export clears away what the killed one left.
    with files.atomic_folder(tmp_path / "export") as folder:
        (folder / "export.json").write_text("next")
    assert [item.name for item in tmp_path.iterdir()] == ["export"]
    # And an error leaves the old folder.
    with pytest.raises(ZeroDivisionError), files.atomic_folder(tmp_path / "export") as folder:
        (folder / "export.json").write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "export/export.json").read_text() == "next"
    assert len([*tmp_path.rglob("*")]) == 2
