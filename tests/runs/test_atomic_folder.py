"""A folder is replaced whole or not at all, whenever the process is killed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from keras_resnet.runs.files import atomic_folder
from tests.export.nets import python

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("renames", "name", "content"),
    [(0, "export", "old"), (1, ".tmp-old-export", "old"), (2, "export", "new")],
)
def test_killed_while_renaming(tmp_path: Path, renames: int, name: str, content: str) -> None:
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
    done = python(code, tmp_path, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / name / "export.json").read_text() == content
    assert (tmp_path / name / "model" / "file").read_text() == content
    # The next export clears away what the killed one left.
    with atomic_folder(tmp_path / "export") as folder:
        (folder / "export.json").write_text("next")
    assert [item.name for item in tmp_path.iterdir()] == ["export"]
    assert [item.name for item in (tmp_path / "export").iterdir()] == ["export.json"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "x") as folder:
        (folder / "export.json").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "x") as folder:
        (folder / "export.json").write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "x" / "export.json").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["x"]
