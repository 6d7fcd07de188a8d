"""Files that are there whole or not at all, and the lock of a run folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_resnet.errors import UserError

BUSY = "another process is training in"  # a sweep waits for it
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
    """`path.exists()`; UserError where that cannot be told (no permission, a name that is too long)."""
    try:
        return path.exists()
    except OSError as error:
        raise UserError(
            f"{path} could not be looked at ({error.strerror}); name another folder"
        ) from None


def read_bytes(path: Path, limit: int) -> bytes | None:
    """A whole file; None where there is none.

    Raises:
        UserError: where it cannot be read, is no regular file (a FIFO would hang) or is larger than
            `limit` bytes.
    """
    try:
        # Without waiting: opening a FIFO would.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise UserError(f"{path} must be a file. Received: another kind; move it away")
            if found.st_size > limit:
                raise UserError(
                    f"{path} must have at most {limit:,} bytes. Received: {found.st_size:,}; it is no "
                    "file of this program: move it away"
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
    """Hold the run folder for this process. The kernel lets go of it when the process dies."""
    try:
        file = open(folder / "lock", "a")  # noqa: SIM115  closed below
    except OSError as error:
        raise UserError(
            f"{folder} must be a folder that can be written to ({error.strerror}); name another with "
            "`output_dir` or `name`"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{BUSY} {folder}: wait for it, stop it, or choose another `name`"
            ) from None
        except OSError as error:
            raise UserError(
                f"{folder} could not be locked ({error.strerror}); use a file system with locks"
            ) from None
        yield


@contextlib.contextmanager
def held_file(path: Path) -> Iterator[Path]:
    """A new, empty file that this process holds locked, and that is gone when the block ends."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "x"))
            stack.callback(_remove, path)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"{path} could not be made and locked ({error.strerror}); use a folder that can be "
                "written to, on a file system with locks"
            ) from None
        yield path


def remove_unheld(folder: Path, pattern: str) -> None:
    """Delete `held_file`s that no process holds any more."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError), open(path, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


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
