"""Files that are written whole or not at all, and the lock of a run folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from keras_resnet.errors import UserError

BUSY = "another process is training in"  # a sweep waits for it
_TEMPORARY = ".tmp-"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, fsync it and rename it to `path`.

    The temporary name keeps `path`'s suffix (Keras looks at it). Raises UserError where the disk is
    full or the folder is read-only, for example; nothing is left behind then.
    """
    path = Path(path)
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}). What was there before is "
            "unharmed: make room or make the folder writable, then give the same command again"
        ) from error
    finally:
        _remove(temporary)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file atomically; see `atomic`."""
    with atomic(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def exists(path: Path) -> bool:
    """`path.exists()`; UserError where the system does not say (no permission, a name that is too long)."""
    try:
        return path.exists()
    except OSError as error:
        raise UserError(
            f"{path} could not be read ({error.strerror}); name another folder"
        ) from None


def read_bytes(path: Path, limit: int) -> bytes | None:
    """A whole file; None where there is none.

    Raises:
        UserError: where it cannot be read, is no regular file (a FIFO would hang) or is larger than
            `limit` bytes.
    """
    try:
        # Without waiting: opening a FIFO would.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path} must be a regular file, but is none; move it away")
            if status.st_size > limit:
                raise UserError(
                    f"{path} must have at most {limit:,} bytes. Received: {status.st_size:,}; this program "
                    "did not write it: move it away"
                )
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(
            f"{path} could not be read ({error.strerror}); make it readable or move it away"
        ) from None


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk; Windows has no such call."""
    if os.name == "nt":
        return
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
            "name another"
        ) from None


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the run folder for this process. When the process dies, the system lets go of it."""
    file = filelock.FileLock(folder / "lock", timeout=0)
    try:
        file.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{BUSY} {folder}: wait for it, stop it, or choose another `name`"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"{folder / 'lock'} could not be locked ({getattr(error, 'strerror', error)}); name another "
            "folder with `output_dir` or `name`, on a file system with locks"
        ) from None
    try:
        yield
    finally:
        file.release()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of processes that died while writing (call it with the lock held)."""
    for pattern in (f"{_TEMPORARY}*", f"checkpoints/{_TEMPORARY}*"):
        for path in folder.glob(pattern):
            _remove(path)


MOVED_ASIDE = re.compile(r"\.old-\d+$")  # the end of the names that move_aside gives


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
            "choose another `name`"
        ) from None
    return target
