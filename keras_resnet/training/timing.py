"""How long training takes: its updates alone, without validations and checkpoints."""

from __future__ import annotations

import time


class Clock:
    """Seconds of updates, over all sessions and since the last evaluation.

    The first call of a session pays for tracing and compiling: it is not counted.

    Attributes:
        seconds: of the updates of all sessions.
        timed: how many updates `seconds` is of.
        interval_seconds, interval_updates: the same since `start_interval`.
    """

    def __init__(self, seconds: float = 0.0, timed: int = 0):
        self.seconds, self.timed = seconds, timed
        self.interval_seconds, self.interval_updates = 0.0, 0
        self._traced = False
        self._last = time.perf_counter()

    def count(self, updates: int) -> None:
        """Take the time since `start` or the last `count` as that of so many updates."""
        now = time.perf_counter()
        if self._traced:
            self.seconds += now - self._last
            self.timed += updates
            self.interval_seconds += now - self._last
            self.interval_updates += updates
        self._traced = True
        self._last = now

    def start(self) -> None:
        """Go on from now: what passed since the last `count` was no training."""
        self._last = time.perf_counter()

    def start_interval(self) -> None:
        """Begin a new interval."""
        self.interval_seconds, self.interval_updates = 0.0, 0

    def rate(self) -> float | None:
        """Updates per second of this interval; None while none was timed."""
        if not self.interval_updates:
            return None
        return self.interval_updates / max(self.interval_seconds, 1e-9)
