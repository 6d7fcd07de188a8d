"""A folder that is written whole or not at all: built beside its place, then renamed to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from keras_resnet.errors import UserError


@contextlib.contextmanager
def staged(final: Path, written: Collection[str]) -> Iterator[Path]:
    """Give a new folder beside `final`; when the block ends without an error, it becomes `final`.

    Args:
        final: the folder to make or to replace. A symbolic link to a folder stays one.
        written: the files that may be in the folder that is replaced, relative to it.

    Raises:
        UserError: where the folder cannot be written, or would replace other files than `written`.
        Whatever the block raises. The new folder is deleted then, and `final` is what it was.
    """
    try:
        os.fsencode(final).decode()  # TensorFlow and ONNX Runtime take paths as UTF-8
        final = Path(os.path.realpath(final))
        _check_replaceable(final, written)
        old = final.with_name(f".tmp-old-{final.name}")
        new = final.with_name(f".tmp-{os.getpid()}-{final.name}")
        final.parent.mkdir(parents=True, exist_ok=True)
        _clean_up_after_killed(final, old)
        new.mkdir()
    except (OSError, UnicodeDecodeError) as error:
        raise _not_writable(final, error) from error
    try:
        yield new
        for item in new.rglob("*"):
            descriptor = os.open(item, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        _replace(final, new, old)
    except OSError as error:
        raise _not_writable(final, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _not_writable(final: Path, error: OSError | UnicodeDecodeError) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(
        f"the output folder must be writable. Received: {ascii(str(final))[1:-1]} ({reason}); what it "
        "held is unchanged: make room, or name another with `output`"
    )


def _check_replaceable(final: Path, written: Collection[str]) -> None:
    if final.exists() and not final.is_dir():
        raise UserError(f"the output must be a folder. Received: {final}, which is a file")
    files = (item for item in final.rglob("*") if item.is_symlink() or not item.is_dir())
    names = (str(file.relative_to(final)) for file in files)
    others = list(itertools.islice((name for name in names if name not in written), 3))
    if others:
        raise UserError(
            f"{final} would be replaced, but holds what this command did not write "
            f"({', '.join(others)}); name another folder with `output`"
        )


def _clean_up_after_killed(final: Path, old: Path) -> None:
    """Put back or delete what processes that were killed left beside `final`."""
    if not final.exists() and old.is_dir():
        old.rename(final)  # killed between the two renames of `_replace`
    for folder in final.parent.glob(f".tmp-*-{final.name}"):
        pid = folder.name.removeprefix(".tmp-").split("-")[0]
        if pid.isdigit() and Path("/proc/self").exists() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _replace(final: Path, new: Path, old: Path) -> None:
    """Put `new` in the place of `final`, which is first renamed to `old` and put back on an error."""
    replaced = final.is_dir()
    if replaced:
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
    try:
        new.rename(final)
    except OSError:
        if replaced:
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
