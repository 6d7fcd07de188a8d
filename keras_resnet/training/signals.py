"""Signals that end a run: remembered until the update is done and a checkpoint is saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from keras_resnet import console

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A signal came; the run is checkpointed at `step`."""

    def __init__(self, signum: int, step: int):
        super().__init__(signum, step)
        self.signum, self.step = signum, step


class Signals:
    """Remember SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal) instead of dying of them.

    A second one has its usual effect. `received` is the signal's number, or 0; `saved` the update of
    the newest checkpoint, which the message names.
    """

    def __init__(self) -> None:
        self.received = 0
        self.saved = 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self  # Python has signals in the main thread only
        # One that is ignored stays ignored: that is what `nohup` is for.
        wanted = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
        self._old = {s: signal.signal(s, self._note) for s in wanted}
        return self

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        self.__exit__()
        console.print_line(
            "\nstopping: saving a checkpoint; Ctrl-C again loses what came after update "
            f"{self.saved:,}"
        )

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, handler)
