"""Ctrl-C while modules are imported: one line, and the process ends at once.

An exception there would end in a traceback of many lines, or be swallowed by one of the modules under
way. Later, where something may have to be cleaned up, Ctrl-C is a KeyboardInterrupt again.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


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
