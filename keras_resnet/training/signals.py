"""Signals while a run is under way: the first asks it to stop after this update, with a checkpoint."""

import signal
import threading
from types import FrameType
from typing import Any, Self

from keras_resnet import console

# Ctrl-C, `kill`, and a terminal that was closed, which Windows does not have.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))

STOPPING = "stopping: saving a checkpoint; a second signal loses what came after update {saved:,}"
TESTING = (
    "finishing: only the test is left; a second signal stops it, and the same command repeats it"
)


def signal_name(signum: int) -> str:
    return "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name


class Interrupted(Exception):
    """A signal came; the run is checkpointed at `step`."""

    def __init__(self, signum: int, step: int):
        super().__init__(signum, step)
        self.signum, self.step = signum, step


class Signals:
    """In its `with` block, remembers the first of `SIGNALS`. A second one has its usual effect.

    Ignored signals, as under `nohup`, stay ignored. In a thread, where Python allows no handlers, it does
    nothing. `message` is printed when the first one comes.
    """

    def __init__(self, message: str = STOPPING) -> None:
        self.received = 0  # the signal's number
        self.saved = 0  # update of the newest checkpoint
        self.message, self._before = message, dict[int, Any]()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._before[signum] = signal.signal(signum, self._remember)
        return self

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        self.__exit__()
        console.print_line("\n" + self.message.format(saved=self.saved))

    def __exit__(self, *raised: Any) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
