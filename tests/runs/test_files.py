"""Checkpoints and folders: what is saved comes back, and is replaced whole or not at all."""

import json
import signal

import numpy as np
import pytest

from keras_resnet.errors import UserError
from keras_resnet.runs import checkpoint, files
from tests.helpers import python

ARRAYS = {"net/a": np.arange(6, dtype=np.float32), "random/0": np.array([1, 2], np.uint32)}


def test_the_newest_two_come_back_exactly(tmp_path):
    for step in (5, 99_999_500, 100_000_000):
        state = {"step": step, "rows": [], "seconds": 1.5, "timed": step}
        checkpoint.save(tmp_path, ARRAYS, state)
        arrays, loaded = checkpoint.load(checkpoint.list_checkpoints(tmp_path)[0])
        assert loaded == state and arrays.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)
    names = [path.name for path in checkpoint.list_checkpoints(tmp_path)]
    assert names == ["step-100000000.npz", "step-99999500.npz"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(UserError, match="could not be written"), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


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


def test_two_processes_do_not_write_one_folder(tmp_path):
    code = "from pathlib import Path; from keras_resnet.runs.files import atomic_folder as write\n"
    code += "with write(Path('export')): pass"
    with files.atomic_folder(tmp_path / "export") as folder:
        (folder / "a").write_text("first")
        done = python("-c", code, cwd=tmp_path)
        assert "another process is writing export" in done.stderr, done.stderr
    assert [item.name for item in tmp_path.rglob("*")] == ["export", "a"]
