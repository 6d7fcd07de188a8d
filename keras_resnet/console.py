"""Text for the terminal: progress, results and errors, and what may be printed at all."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from typing import Any

from keras_resnet.errors import UserError


def printable(value: object) -> str:
    """Text that is safe to print: what comes from files may hold control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def duration(seconds: float) -> str:
    """A duration in words, e.g. `"2 h 05 min"`; days for what is longer than two."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, days = minutes // 60, minutes / (24 * 60)
    return f"{days:.1f} days" if days > 2 else f"{hours} h {minutes % 60:02d} min"


def width() -> int | None:
    """Columns of the terminal that stdout is; None where it is none."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stdout.isatty():
            return shutil.get_terminal_size().columns
    return None


def _wrapped(text: str) -> str:
    """Lines that a terminal would break in the middle of a word, broken at spaces."""
    columns = width()
    if not columns:
        return text
    fill = functools.partial(
        textwrap.fill,
        width=max(columns, 40),
        subsequent_indent="  ",
        break_long_words=False,  # paths are copied
        break_on_hyphens=False,
    )
    return "\n".join(fill(line) if len(line) > columns else line for line in text.split("\n"))


def print_line(text: str) -> None:
    """Print a line of progress, on a terminal broken to its width.

    Where it cannot be written (`| head` has gone, the disk behind it is full), work goes on without words.
    """
    try:
        print(_wrapped(text), flush=True)
    except RuntimeError:
        pass  # said by a signal handler, while another line waits for a terminal that is held
    except (OSError, ValueError):
        silence()


def print_result(text: str) -> None:
    """Print what the command was called for.

    Raises:
        UserError: where it cannot be written.
        BrokenPipeError: where its reader has gone, which is no error of ours.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        silence()
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"standard output must be writable. Received: {reason}; make room or send it elsewhere"
        ) from None


def print_status(text: str) -> None:
    """Say on a terminal what takes a while; results go to stdout, and a log needs no such line."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)


def print_error(text: str) -> None:
    """Print a line on stderr, if that can be written."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def without_lines(unwanted: re.Pattern[bytes]) -> Iterator[int]:
    """Drop lines of this form from what libraries write to stderr meanwhile; pass the rest on at the end.

    Yields:
        A descriptor of stderr itself.
    """
    if sys.stderr is None:  # closed
        yield 2
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as lines:
        os.dup2(lines.fileno(), 2)
        try:
            yield stderr
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            lines.seek(0)
            os.write(2, b"".join(line for line in lines if not unwanted.match(line)))


def print_any_character() -> None:
    """Let a letter that the terminal's encoding lacks be written as an escape instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def silence() -> None:
    """Let stdout go nowhere: Python would else flush it once more at exit and complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
