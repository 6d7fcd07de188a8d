"""Printing on the terminal: progress, results and errors.

What comes from files and names may hold control characters; none of them is printed.
"""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

from keras_resnet.errors import UserError


def printable(value: object, kept: str = "") -> str:
    """The text, with a replacement character for each that is not printable and not in `kept`."""
    return "".join(c if c.isprintable() or c in kept else "\ufffd" for c in str(value))


def duration(seconds: float) -> str:
    """A duration in words, e.g. `"2 h 05 min"`; more than two days in days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, days = minutes // 60, minutes / (24 * 60)
    return f"{days:.1f} days" if days > 2 else f"{hours} h {minutes % 60:02d} min"


def print_line(text: str) -> None:
    """Print progress; go on where it cannot be written (`| head` has ended, the disk is full)."""
    try:
        print(printable(text, "\n"), flush=True)
    except RuntimeError:
        pass  # printed by a signal handler in the middle of another print
    except (OSError, ValueError):
        silence()


def print_result(text: str) -> None:
    """Print what the command was called for. Raises UserError where it cannot be written.

    A BrokenPipeError (`| head` has ended) is raised as it is: it is no error of ours.
    """
    try:
        print(printable(text, "\n"), flush=True)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        silence()
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"standard output must be writable. Received: {reason}; make room or send it elsewhere"
        ) from None


def print_status(text: str) -> None:
    """Say on stderr what takes a while, if it is a terminal: a log gets the results alone."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            print_error(text)


def image_bar(images: int, done: Iterable[Any] | None = None) -> Any:
    """A progress bar, over `done` if that is given; nothing where stderr is no terminal."""
    return tqdm(done, total=images, unit="image", disable=None, dynamic_ncols=True, leave=False)


def print_error(text: str) -> None:
    """Print on stderr, if that can be written."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(text, "\n"), file=sys.stderr, flush=True)


@functools.cache
def print_note(text: str) -> None:
    """Print a note on stderr, each once."""
    print_error(f"note: {text}")


@contextlib.contextmanager
def without_lines(unwanted: re.Pattern[bytes]) -> Iterator[None]:
    """Drop lines of this form from what libraries write to stderr meanwhile; pass the rest on at the end."""
    if sys.stderr is None or not hasattr(os, "memfd_create"):  # closed, or not Linux
        yield
        return
    stderr = os.dup(2)
    with open(os.memfd_create("stderr"), "w+b") as lines:  # containers may have no writable /tmp
        os.dup2(lines.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            lines.seek(0)
            os.write(2, b"".join(line for line in lines if not unwanted.match(line)))


def silence() -> None:
    """Send stdout to the null device: else Python flushes it again at exit, and complains."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
