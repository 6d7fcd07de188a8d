"""How every command ends: in one line, with its exit code."""

import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from keras_resnet import console
from keras_resnet.errors import EXTRAS, UserError, missing
from keras_resnet.training.signals import SIGNALS, signal_name

_received: list[int] = []  # signals that came during a command
_stderr: int | None = None  # a descriptor of stderr, inside `ending_at_once`


def run(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit code; user errors and signals end in one line, no traceback.

    Signals that are ignored, as under `nohup`, stay ignored. While `fit` runs, `training.signals` handles
    them. A reader of our output that ends early (`| head`) is no error.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a letter that the terminal's encoding lacks becomes an escape
            reconfigure(errors="backslashreplace")
    _received.clear()
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    for signum in SIGNALS:
        if before[signum] is not signal.SIG_IGN:
            signal.signal(signum, _stop)
    try:
        return command() or 0
    except BrokenPipeError:
        console.silence()
        return 0
    except BaseException as error:
        # Whatever a library makes of the KeyboardInterrupt: NumPy raises an ImportError for it.
        if _received:
            console.print_error(f"stopped by {signal_name(_received[-1])}")
            return 128 + _received[-1]
        package = str(getattr(error, "name", "")).partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and package in EXTRAS:
            error = missing(package)
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.ENAMETOOLONG):
            path, reason = error.filename, error.strerror
            error = UserError(f"{path} could not be read or written ({reason}); name another path")
        if not isinstance(error, UserError):
            raise
        console.print_error(with_flags(f"error: {error}"))
        return error.exit_code
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _stop(signum: int, frame: FrameType | None) -> None:
    if _stderr is not None:
        os.write(_stderr, f"stopped by {signal_name(signum)}\n".encode())
        os._exit(128 + signum)
    _received.append(signum)
    raise KeyboardInterrupt


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Inside, a signal ends the process at once: an exception could abort a library."""
    global _stderr
    _stderr = os.dup(2)
    try:
        yield
    finally:
        os.close(_stderr)
        _stderr = None


def with_flags(message: str) -> str:
    """The message on one line, with flags (--batch-size) for names in backticks (`batch_size`)."""
    line = " ".join(message.split())
    return re.sub(r"`([a-z_]+)`", lambda name: f"--{name[1].replace('_', '-')}", line)
