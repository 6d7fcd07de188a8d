"""How far a run is: what is shown on the terminal, and what a checkpoint keeps of it."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import keras
from tqdm import tqdm

from keras_resnet import console
from keras_resnet.runs.checkpoint import State
from keras_resnet.runs.folder import MetricsRow
from keras_resnet.runs.run import Run

ESTIMATE_AFTER = 20  # updates, after which the speed is steady enough for an estimate


@dataclasses.dataclass
class Progress:
    """What a run has done, over all its sessions.

    Attributes:
        step: updates made.
        rows: of metrics.csv.
        seconds: spent on updates, without validations and checkpoints. The first call of a session pays
            for tracing and compiling and is not counted.
        timed: how many updates `seconds` is of.
        stopped_early: whether a callback of the user's ended the run before its last update.
        signum: the signal that stops this session, or 0.
    """

    step: int = 0
    rows: list[MetricsRow] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    timed: int = 0
    stopped_early: bool = False
    signum: int = 0
    _interval: tuple[float, int] = (0.0, 0)  # seconds and timed when the interval began
    _last: float | None = None  # when the last update ended

    @classmethod
    def of(cls, state: State) -> Progress:
        """The progress that a checkpoint holds."""
        timed = state.get("timed", state["step"])
        early = state.get("stopped_early", False)
        progress = cls(state["step"], state["rows"], state["seconds"], timed, early)
        progress.begin_interval()
        return progress

    def state(self, run: Run) -> State:
        """What a checkpoint holds beside the variables."""
        return {
            "step": self.step,
            "rows": self.rows,
            "seconds": self.seconds,
            "timed": self.timed,
            "stopped_early": self.stopped_early,
            "settings": run.settings(),
        }

    def count(self, step: int) -> None:
        """Take the time since `resume_clock` as that of the updates up to `step`."""
        if self._last is not None:
            self.seconds += time.perf_counter() - self._last
            self.timed += step - self.step
        self.step = step
        self.resume_clock()

    def resume_clock(self) -> None:
        """Time updates from now on: what came before was none."""
        self._last = time.perf_counter()

    def begin_interval(self) -> None:
        """Begin the interval that `interval_updates` and `rate` are about."""
        self._interval = self.seconds, self.timed

    @property
    def interval_updates(self) -> int:
        """Timed updates of this interval."""
        return self.timed - self._interval[1]

    def rate(self) -> float | None:
        """Updates per second of this interval; None while none was timed."""
        seconds = max(self.seconds - self._interval[0], 1e-9)
        return self.interval_updates / seconds if self.interval_updates else None


class ProgressBar(keras.callbacks.Callback):
    """A bar where stderr is a terminal, an estimate of the time after the first updates."""

    def __init__(self, run: Run, progress: Progress):
        super().__init__()
        self.steps, self.batch_size = run.recipe.steps, run.recipe.batch_size
        self.progress = progress
        self._start = progress.step
        self._images_per_second: float | None = None
        self._estimated = False
        self._bar: tqdm | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._bar = tqdm(
            total=self.steps,
            initial=self._start,
            unit="update",
            disable=None,  # without a terminal, the line per evaluation is progress enough
            dynamic_ncols=True,
            # Not tqdm's {remaining}: it takes compiling and validating for updates.
            bar_format="{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}",
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert self._bar is not None and logs is not None
        step = self.progress.step
        first = self._images_per_second is None and step - self._start >= ESTIMATE_AFTER
        if first or self.progress.interval_updates >= ESTIMATE_AFTER:
            self._images_per_second = (self.progress.rate() or 0.0) * self.batch_size or None
        if step % 10 == 0:
            speed = f", {self._images_per_second:.0f} images/s" if self._images_per_second else ""
            left = f"{self._time_left()} left, " if self._images_per_second else ""
            self._bar.set_postfix_str(f"{left}loss {logs['loss']:.3f}{speed}", refresh=False)
        self._bar.update(step - self._bar.n)
        if not self._estimated and self._images_per_second:
            self._estimated = True
            if self.steps - step > 100:
                self.print(
                    f"first {step - self._start} updates: {self._images_per_second:.0f} images/s; the "
                    f"remaining {self.steps - step:,} updates will take about {self._time_left()}"
                )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def show(self, text: str) -> None:
        """Show what is done now, beside the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=True)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        assert self._bar is not None
        self._bar.clear()
        console.print_line(text)
        self._bar.refresh()

    def print_row(self, row: MetricsRow) -> None:
        """Print what an evaluation measured."""
        validation = "" if row["val_error"] is None else f", validation {row['val_error']:.2f} %"
        speed = row["images_per_second"]
        self.print(
            f"update {row['step']:,}/{self.steps:,}: loss {row['train_loss']:.4f}, "
            f"error: training {row['train_error']:.2f} %{validation}, "
            f"rate {row['learning_rate']:g}" + ("" if speed is None else f", {speed:.0f} images/s")
        )

    def _time_left(self) -> str:
        assert self._images_per_second
        remaining = self.steps - self.progress.step
        return console.duration(remaining * self.batch_size / self._images_per_second)
