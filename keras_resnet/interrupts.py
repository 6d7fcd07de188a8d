"""Signals that end a process, and who handles them for how long.

While modules are imported, one line is written and the process ends at once: an exception there would end
in a traceback of many lines, or be swallowed by one of the modules under way. Later, where something may
have to be cleaned up, Ctrl-C is a KeyboardInterrupt again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]
# Ctrl-C, `kill`, and a terminal that was closed, which Windows does not tell.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextlib.contextmanager
def handled(handler: Handler | signal.Handlers, once: bool = False) -> Iterator[None]:
    """Handle `SIGNALS` so, but for those that are ignored, as under `nohup`.

    In a thread it does nothing: Python has signals in the main thread only.

    Args:
        handler: a function, or `signal.SIG_DFL`.
        once: only the first signal; a second one has the effect it had before.
    """
    old: dict[int, Any] = {}

    def restore() -> None:
        for signum, before in old.items():
            signal.signal(signum, before)

    def first(signum: int, frame: FrameType | None) -> None:
        restore()
        assert callable(handler)
        handler(signum, frame)

    if threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                old[signum] = signal.signal(signum, first if once else handler)
    try:
        yield
    finally:
        restore()


def leaving(stderr: int = 2) -> Handler:
    """A handler that says so on the descriptor `stderr` and ends the process: 130 for SIGINT."""

    def leave(signum: int, frame: FrameType | None) -> None:
        os.write(stderr, b"interrupted\n" if signum == signal.SIGINT else b"terminated\n")
        os._exit(128 + signum)

    return leave


_leave = leaving()


def leave_at_once() -> None:
    """From now on Ctrl-C ends the process. What is ignored, as under `nohup`, stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with contextlib.suppress(ValueError):  # in a thread, where no signal arrives
            signal.signal(signal.SIGINT, _leave)


def raise_again() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt, where `leave_at_once` had changed that."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
