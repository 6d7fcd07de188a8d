"""Checkpoints: what a resume needs, in one checksummed file.

NumPy's `.npz`, because Keras's own savers do not keep the state of the random generators nor the metrics,
`BackupAndRestore` forgets the batch and deletes its folder, and `tf.train.Checkpoint` and Orbax write
several files, which cannot be renamed as one, without a checksum. An `.npz` is one file, is read without
pickle, and holds the exact bits of every array; a SHA-256 over names, types, shapes and bytes goes with
them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

import msgspec
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.runs.files import atomic
from keras_resnet.runs.folder import Count, MetricsRow, NotNegative

KEEP_CHECKPOINTS = 2
MAX_BYTES = 1 << 30  # ResNet-1202 has 157 MB
_DIGEST = "sha256"


class State(TypedDict):
    """What a checkpoint holds besides arrays."""

    step: Count
    rows: list[MetricsRow]
    seconds: NotNegative  # of training alone, over all sessions
    timed: NotRequired[Count]  # updates that `seconds` is of; 0.1.0 did not say it
    settings: NotRequired[dict[str, bool | int | float | str | None]]  # likewise


def save_checkpoint(
    folder: Path, step: int, arrays: Mapping[str, np.ndarray], state: State
) -> Path:
    """Write `checkpoints/step-<step>.npz` and delete all but the newest two.

    Args:
        folder: the run folder.
        step: updates made.
        arrays: name -> array (no object arrays).
        state: what else a resume needs, as JSON.
    """
    members = {
        **arrays,
        "state": np.frombuffer(json.dumps(state, allow_nan=False).encode(), np.uint8),
    }
    members[_DIGEST] = _digest(members)
    path = folder / "checkpoints" / f"step-{step:08d}.npz"
    with atomic(path) as temporary:
        path.parent.mkdir(exist_ok=True)
        with open(temporary, "wb") as file:
            np.savez(file, **members)  # type: ignore[arg-type]
    for old in list_checkpoints(folder)[KEEP_CHECKPOINTS:]:
        with contextlib.suppress(OSError):
            old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files of a run folder, newest first."""
    files = (folder / "checkpoints").glob("step-*.npz")
    found = [f for f in files if re.fullmatch(r"step-\d{8,}\.npz", f.name)]
    return sorted(found, key=lambda f: int(f.stem.removeprefix("step-")), reverse=True)


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], State]:
    """Read (arrays, state). Raises ValueError where the file is torn or its checksum is not right."""
    try:
        _check_sizes(path)
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            members = {name: archive[name] for name in archive.files}
        digest = members.pop(_DIGEST, None)
        if digest is None or not np.array_equal(digest, _digest(members)):
            raise ValueError("its checksum does not match")
        state = msgspec.json.decode(members.pop("state").tobytes(), type=State)
    except MemoryError:
        raise
    except Exception as error:  # zipfile, NumPy and msgspec raise many kinds on damaged bytes
        raise ValueError(f"unreadable: {error}") from None
    return members, state


def _check_sizes(path: Path) -> None:
    """Refuse a file that says it holds more than it does: our arrays are stored as they are."""
    if not path.is_file():
        raise ValueError("it is no regular file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read(file)
                declared = dtype.itemsize * int(np.prod(shape, dtype=object)) + file.tell()
            if member.compress_type != zipfile.ZIP_STORED or declared != member.file_size:
                raise ValueError(f"{member.filename} is not as large as it says")


def newest_checkpoint(
    folder: Path,
) -> tuple[tuple[dict[str, np.ndarray], State] | None, list[str]]:
    """The newest good checkpoint, or None where there is no file, and what was wrong with newer ones.

    Raises:
        UserError: where there are checkpoints and none is good. Nothing is deleted.
    """
    problems: list[str] = []
    for path in list_checkpoints(folder):
        try:
            return load_checkpoint(path), problems
        except ValueError as error:
            problems.append(f"{path.name} is damaged ({error})")
    if problems:
        raise UserError(
            f"no checkpoint in {folder / 'checkpoints'} is good: {'; '.join(problems)}. Nothing was "
            "deleted; `restart` moves this run aside and starts over"
        )
    return None, problems


def _digest(members: Mapping[str, np.ndarray]) -> np.ndarray:
    digest = hashlib.sha256()
    for name in sorted(members):
        array = np.ascontiguousarray(members[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
