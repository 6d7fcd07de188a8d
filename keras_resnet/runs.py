"""The run folder: config, metrics, checkpoints, results; atomic files, the lock, what a resume finds.

    <output-dir>/<name>/seed-<k>/
        config.json        every setting, versions, device
        metrics.csv        a row an evaluation
        results.json       written last: a run that has it is finished
        model.keras        float32, raw pixels in, class probabilities out
        checkpoints/       step-00000500.npz: the newest two
        tensorboard/       the same metrics for TensorBoard
        lock               held by the process that trains here

Every file is written to a temporary name in its folder, fsynced and renamed, so that whatever happens the
old file or the new one is there, whole.

Checkpoints are NumPy's `.npz`. Keras's own savers do not keep the state of the random generators nor the
metrics, `BackupAndRestore` forgets the batch and deletes its folder, and `tf.train.Checkpoint` and Orbax
write several files, which cannot be renamed as one, without a checksum. An `.npz` is one file, is read
without pickle, and holds the exact bits of every array; a SHA-256 over names, types, shapes and bytes goes
with them.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.cli import UserError

METRICS = (
    "step", "learning_rate", "train_loss", "train_error", "val_loss", "val_error", "images_per_second",
)  # fmt: skip
KEEP_CHECKPOINTS = 2
_DIGEST = "sha256"
_TEMPORARY = ".tmp-"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, fsync it and rename it to `path`.

    The temporary name keeps `path`'s suffix (Keras looks at it). Raises UserError where the disk is
    full, the folder is read-only and the like; nothing is left behind then.
    """
    path = Path(path)
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}). What was there before is "
            "unharmed: make room or make the folder writable, then give the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file atomically; see `atomic`."""
    with atomic(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically."""
    write_atomic(path, json.dumps(value, indent=2) + "\n")


def exists(path: Path) -> bool:
    """`path.exists()`; UserError where that cannot be told (no permission, a name that is too long)."""
    try:
        return path.exists()
    except OSError as error:
        raise UserError(
            f"{path} could not be looked at ({error.strerror}); name another folder with --output-dir "
            "or --name"
        ) from None


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is no file. Raises UserError where it is not JSON."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} could not be read as JSON ({error}); move it away to start over"
        ) from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder that can be written to, or raise UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"the output folder must be writable. Received: {folder} ({error.strerror}); "
            "name another with --output-dir"
        ) from None


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the run folder for this process. The kernel lets go of it when the process dies."""
    try:
        file = open(folder / "lock", "a")  # noqa: SIM115  closed below
    except OSError as error:
        raise UserError(
            f"{folder} must be a folder that can be written to ({error.strerror}); name another with "
            "--output-dir or --name"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is training in {folder}: wait for it, stop it, or choose another --name"
            ) from None
        except OSError as error:
            raise UserError(
                f"{folder} could not be locked ({error.strerror}); use a file system with locks"
            ) from None
        yield


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of processes that died while writing (call it with the lock held)."""
    for pattern in (f"{_TEMPORARY}*", f"checkpoints/{_TEMPORARY}*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()


def move_aside(folder: Path) -> Path:
    """Rename a run folder to the first free `<folder>.old-<k>`; returns that (call it with the lock held)."""
    k = 1
    while (target := folder.with_name(f"{folder.name}.old-{k}")).exists():
        k += 1
    try:
        folder.rename(target)
    except OSError as error:
        raise UserError(
            f"{folder} could not be moved to {target} ({error.strerror}); make its parent writable, or "
            "choose another --name"
        ) from None
    return target


# --- metrics ---------------------------------------------------------------------------------------


def metrics_csv(rows: Sequence[Mapping[str, float | int | None]]) -> str:
    """The text of metrics.csv: `METRICS` as columns; a value that was not measured stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, METRICS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_metrics(folder: Path) -> list[dict[str, float | None]]:
    """The rows of a run folder's metrics.csv, oldest first; an empty list where there is none.

    Raises:
        UserError: where it cannot be read as such a table.
    """
    path = folder / "metrics.csv"
    try:
        with open(path, newline="") as file:
            rows = [
                {key: float(value) if value else None for key, value in row.items()}
                for row in csv.DictReader(file)
            ]
        if any(row.keys() != set(METRICS) or row["step"] is None for row in rows):
            raise ValueError(f"its columns must be {', '.join(METRICS)}, with a step in each row")
        return rows
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} could not be read ({error}); move it or its folder away") from None


# --- checkpoints -----------------------------------------------------------------------------------


def save_checkpoint(folder: Path, step: int, arrays: Mapping[str, np.ndarray], state: dict) -> Path:
    """Write `checkpoints/step-<step>.npz` and delete all but the newest two.

    Args:
        folder: the run folder.
        step: updates made.
        arrays: name -> array (no object arrays).
        state: what else a resume needs, as JSON.
    """
    members = {**arrays, "state": np.frombuffer(json.dumps(state).encode(), np.uint8)}
    members[_DIGEST] = _digest(members)
    path = folder / "checkpoints" / f"step-{step:08d}.npz"
    with atomic(path) as temporary:
        path.parent.mkdir(exist_ok=True)
        with open(temporary, "wb") as file:
            np.savez(file, **members)
    for old in checkpoints(folder)[KEEP_CHECKPOINTS:]:
        with contextlib.suppress(OSError):
            old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files of a run folder, newest first."""
    files = (folder / "checkpoints").glob("step-*.npz")
    return sorted((f for f in files if re.fullmatch(r"step-\d{8,}\.npz", f.name)), reverse=True)


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read (arrays, state). Raises ValueError where the file is torn or its checksum is not right."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            members = {name: archive[name] for name in archive.files}
    except MemoryError:
        raise
    except Exception as error:  # zipfile and NumPy raise many kinds on damaged bytes
        raise ValueError(f"unreadable: {error}") from None
    digest = members.pop(_DIGEST, None)
    if digest is None or not np.array_equal(digest, _digest(members)):
        raise ValueError("its checksum does not match")
    state = json.loads(members.pop("state").tobytes())
    return members, state


def newest_checkpoint(
    folder: Path,
) -> tuple[tuple[dict[str, np.ndarray], dict[str, Any]] | None, list[str]]:
    """The newest good checkpoint, or None where there is no file, and what was wrong with newer ones.

    Raises:
        UserError: where there are checkpoints and none is good. Nothing is deleted.
    """
    problems: list[str] = []
    for path in checkpoints(folder):
        try:
            return load_checkpoint(path), problems
        except ValueError as error:
            problems.append(f"{path.name} is damaged ({error})")
    if problems:
        raise UserError(
            f"no checkpoint in {folder / 'checkpoints'} is good: {'; '.join(problems)}. Nothing was "
            "deleted; --restart moves this run aside and starts over"
        )
    return None, problems


def _digest(members: Mapping[str, np.ndarray]) -> np.ndarray:
    digest = hashlib.sha256()
    for name in sorted(members):
        array = np.ascontiguousarray(members[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
