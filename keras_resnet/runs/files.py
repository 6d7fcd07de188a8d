"""Files and folders that are written whole or not at all, and the lock of a run folder."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from keras_resnet.errors import UserError

BUSY = "another process is training in"  # a sweep waits for it
MOVED_ASIDE = re.compile(r"\.old-\d+$")  # the end of the names that move_aside gives
_TEMPORARY = ".tmp-"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, with its suffix; when the block ends well, rename it to `path`.

    Raises UserError where the disk is full, for example; nothing is left behind then.
    """
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    with _writing(path):
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path`; when the block ends well, it takes the place of the folder `path`.

    Else `path` is what it was; after a kill between the two renames, the next call puts it back. Raises
    UserError where another process writes it.
    """
    names = (path.with_name(f"{_TEMPORARY}{part}-{path.name}") for part in ("new", "old", "lock"))
    new, old, lock_file = names
    guard = filelock.FileLock(lock_file, timeout=0)

    def clean_up() -> None:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)

    with _writing(path):
        with contextlib.suppress(NotImplementedError):  # a file system without locks
            guard.acquire()
        try:
            clean_up()
            new.mkdir()
            yield new
            for item in new.rglob("*"):
                sync(item)
            if path.exists():
                os.replace(path, old)
            os.replace(new, path)
            sync(path.parent)
        finally:
            with contextlib.suppress(OSError):
                clean_up()
                lock_file.unlink(missing_ok=True)
            guard.release()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make the folder that `path` is in. Raises UserError for what the system refuses meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except filelock.Timeout:
        raise UserError(
            f"another process is writing {path}: wait, or name another folder"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}). What was there before is "
            "unharmed: make room or make the folder writable, then give the same command again"
        ) from error


def sync(path: Path) -> None:
    """Have the system write a file or a folder's entries to the disk; Windows does so by itself."""
    if os.name != "nt":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomic(path: Path, data: bytes | str) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_bytes(path: Path) -> bytes | None:
    """A whole file; None where there is none. Raises UserError where it cannot be read, e.g. a FIFO."""
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it is not a regular file")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> UserError:
    """The error for what is there and could not be read, damaged or not."""
    return UserError(
        f"{path} could not be read ({error.strerror}); make it readable or move it away, then give the "
        "same command again"
    )


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock a run folder. It is made if there is none, and removed again if nothing was written into it.

    If this process dies, the system releases the lock. Raises UserError where another process holds it.
    """
    file = filelock.FileLock(folder / "lock", timeout=0)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.acquire()
    except filelock.Timeout:
        raise UserError(f"{BUSY} {folder}: wait, stop it or give another `output_dir`") from None
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"{folder / 'lock'} could not be locked ({getattr(error, 'strerror', error)}): the output folder "
            "must be writable, on a file system with locks; name another with `output_dir` or `name`"
        ) from None
    try:
        for place in (folder, folder / "checkpoints"):
            for temporary in place.glob(f"{_TEMPORARY}[0-9]*-*"):
                temporary.unlink(missing_ok=True)  # of a process that died while writing
        yield
    finally:
        with contextlib.suppress(OSError):
            if made and os.listdir(folder) == ["lock"]:  # refused before anything was written
                (folder / "lock").unlink()
                for path in made:
                    path.rmdir()
        file.release()


def move_aside(folder: Path) -> Path:
    """Rename a run folder in which nobody trains to the first free `<folder>.old-<k>`; returns that."""
    k = 1
    while (target := folder.with_name(f"{folder.name}.old-{k}")).exists():
        k += 1
    try:
        return folder.rename(target)
    except OSError as error:
        problem = f"{folder} could not be moved to {target} ({error.strerror})"
        raise UserError(f"{problem}; make its parent writable, or give another `name`") from None
