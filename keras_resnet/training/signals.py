"""Signals that end a run: remembered until the update is done and a checkpoint is saved."""

from __future__ import annotations

from types import FrameType
from typing import Any

from keras_resnet import console, interrupts


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
        self._handled = interrupts.handled(self._note, once=True)

    def __enter__(self) -> Signals:
        self._handled.__enter__()
        return self

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        console.print_line(
            "\nstopping: saving a checkpoint; Ctrl-C again loses what came after update "
            f"{self.saved:,}"
        )

    def __exit__(self, *raised: Any) -> None:
        self._handled.__exit__(*raised)
