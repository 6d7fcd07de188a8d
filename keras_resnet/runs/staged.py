"""A folder that is written as one: built beside its place, then moved there in one step."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_resnet.errors import UserError


@contextlib.contextmanager
def staged(final: Path, written: frozenset[str], marker: str) -> Iterator[Path]:
    """Give a new folder beside `final`; when the block ends well, it becomes `final` in one step.

    Args:
        final: the folder to make or to replace. A symbolic link to a folder stays one.
        written: all names that may be in it. A folder with others is not replaced.
        marker: the name that shows that a folder is ours to replace.

    Raises:
        UserError: where the folder cannot be written, or may not be replaced. Nothing is left
            behind.
        Whatever the block raises, after the new folder was deleted.
    """
    final = _resolved(final)
    staging = final.with_name(f".tmp-{os.getpid()}-{final.name}")
    try:
        _check_name(final)
        _check_replaceable(final, written, marker)
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(final)
        staging.mkdir()
        yield staging
        for item in staging.rglob("*"):
            descriptor = os.open(item, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        _move(staging, final)
    except OSError as error:
        raise UserError(
            f"the output folder must be writable. Received: {final} ({error.strerror or error}); "
            "what was there is unharmed: make room, or name another with `output`"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _resolved(path: Path) -> Path:
    try:
        path = path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise UserError(
            f"`output` must be a path that can be followed. Received: {path} ({error})"
        ) from None
    if not path.name:
        raise UserError(f"`output` must be a folder that can be replaced. Received: {path}")
    return path


def _check_name(final: Path) -> None:
    """TensorFlow and ONNX Runtime, which write and read here, take paths as UTF-8."""
    try:
        str(final).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"the output folder's path must be UTF-8. Received: {ascii(str(final))}; "
            "name another with `output`"
        ) from None


def _check_replaceable(final: Path, written: frozenset[str], marker: str) -> None:
    """Refuse to replace anything that is not an export and nothing but an export."""
    if not final.is_dir():
        if final.exists():
            raise UserError(f"the output must be a folder. Received: {final}, which is a file")
        return
    names = {item.name for item in final.iterdir()}
    foreign = sorted(names - written)
    if foreign or (names and marker not in names):
        raise not_ours(final, foreign or sorted(names))


def not_ours(final: Path, found: Sequence[str]) -> UserError:
    """The error for a folder that holds what no export wrote."""
    return UserError(
        f"{final} would be replaced, but holds what this command did not write "
        f"({', '.join(found[:3])}); name another folder with `output`"
    )


def _remove_leftovers(final: Path) -> None:
    """Delete the staging folders of exports that were killed."""
    old = _aside(final)
    if not final.exists() and old.is_dir():
        old.rename(final)  # it died between the two renames of `_move`
    for folder in final.parent.glob(f".tmp-*-{final.name}"):
        pid = folder.name.removeprefix(".tmp-").split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _move(staging: Path, final: Path) -> None:
    """Put `staging` in the place of `final`.

    What was there gets another name first. It is there again if the second rename fails, and the next
    export puts it back if the process dies between the two.
    """
    old = _aside(final)
    replaced = final.is_dir()
    if replaced:
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
    try:
        staging.rename(final)
    except OSError:
        if replaced:
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _aside(final: Path) -> Path:
    """Where an export waits while it is replaced: a name that no user has."""
    return final.with_name(f".tmp-old-{final.name}")
