"""How far a run is: what is shown on the terminal, and what a checkpoint keeps of it."""

from __future__ import annotations

import time
from typing import Any

import keras
from tqdm import tqdm

from keras_resnet import console
from keras_resnet.runs.checkpoint import Arrays, State
from keras_resnet.runs.folder import MetricsRow
from keras_resnet.runs.run import Run
from keras_resnet.training import hosts
from keras_resnet.training.signals import Signals

ESTIMATE_AFTER = 19  # timed updates, after which the speed is steady enough for an estimate


class Progress:
    """What a run has done, over all its sessions.

    Args:
        run: what is trained.
        newest: the checkpoint that it goes on from.

    Attributes:
        signals: that ask this session to stop.
        arrays: variables of the checkpoint, until they are restored.
        step: updates made.
        rows: of metrics.csv.
        seconds: spent on updates, without validations and checkpoints. The first call of a session pays
            for tracing and compiling and is not counted.
        timed: how many updates took these `seconds`.
        stopped_early: whether a callback of the user's ended the run before its last update.
        signum: the signal that stops this session, or 0.
        keep: which net is saved, "best" or "last".
        best: variables of the net of the lowest validation error so far, by path.
    """

    def __init__(self, run: Run, newest: tuple[Arrays, State] | None = None):
        arrays, state = newest or ({}, State(step=0, rows=[], seconds=0.0))
        self.run, self.signum, self.signals = run, 0, Signals()
        self.best = {name[5:]: array for name, array in arrays.items() if name[:5] == "best/"}
        self.arrays = {name: array for name, array in arrays.items() if name[:5] != "best/"}
        self.step, self.rows, self.seconds = state["step"], state["rows"], state["seconds"]
        self.timed = state.get("timed", self.step)
        self.stopped_early = state.get("stopped_early", False)
        self.keep = "last"
        self.signals.saved = self.step
        self._last: float | None = None  # when the last update ended
        self.begin_interval()

    def state(self) -> State:
        """What a checkpoint holds beside the variables."""
        return {
            "step": self.step,
            "rows": self.rows,
            "seconds": self.seconds,
            "timed": self.timed,
            "stopped_early": self.stopped_early,
            "settings": self.run.settings(),
        }

    @property
    def ended(self) -> bool:
        """Whether all updates were made, or a callback of the user's has ended the run."""
        return self.stopped_early or self.step >= self.run.recipe.steps

    @property
    def kept(self) -> MetricsRow:
        """The row of the net that is saved: of the lowest validation error, or the last."""
        if self.keep == "last":
            return self.rows[-1]
        return min(self.rows, key=lambda row: row["val_error"] or 0.0)

    @property
    def evaluation_due(self) -> bool:
        """Whether the run is evaluated after this update."""
        return self.run.evaluates(self.step)

    def count(self, step: int) -> None:
        """Count the updates up to `step`, and the time since `resume_clock` as theirs."""
        if self._last is not None:
            self.seconds += time.perf_counter() - self._last
            self.timed += step - self.step
        self.step = step

    def resume_clock(self) -> None:
        """Start the clock again: what was done since the last update does not count."""
        self._last = time.perf_counter()

    def begin_interval(self) -> None:
        """Begin a new interval for `images_per_second`."""
        self._interval = self.seconds, self.timed

    def images_per_second(self, at_least: int = 1) -> float | None:
        """Speed in this interval; None where fewer than `at_least` updates were timed."""
        seconds, updates = self.seconds - self._interval[0], self.timed - self._interval[1]
        images = updates * self.run.recipe.batch_size
        return images / max(seconds, 1e-9) if updates >= at_least else None


class ProgressBar(keras.callbacks.Callback):
    """A bar where stderr is a terminal, and an estimate of the time after the first updates."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress, self._start = progress, progress.step
        self._speed: float | None = None  # images per second
        self._bar = tqdm(
            total=progress.run.recipe.steps,
            initial=progress.step,
            # None: without a terminal, the line per evaluation is progress enough.
            disable=None if hosts.is_first() else True,
            dynamic_ncols=True,
            # Not tqdm's {remaining}, which counts compiling and validating as updates.
            bar_format="{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}",
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step, known = self.progress.step, self._speed is not None
        self._speed = self.progress.images_per_second(ESTIMATE_AFTER) or self._speed
        remaining = self.progress.run.recipe.steps - step
        speed, left = "", ""
        if self._speed:
            speed = f"{self._speed:.0f} images/s"
            left = console.duration(remaining * self.progress.run.recipe.batch_size / self._speed)
        if self._speed and not known and remaining > 100:
            recipe, later = self.progress.run.recipe, self.progress.run.later
            total = (remaining + later * recipe.steps) * recipe.batch_size / self._speed
            self.print(
                f"first {step - self._start} updates: {speed}; the remaining {remaining:,} updates will "
                f"take about {left}"
                + (f" ({console.duration(total)} with the later seeds)" if later else "")
            )
        if step % 10 == 0 and logs is not None:
            loss = f"loss {logs['loss']:.3f}"
            self._bar.set_postfix_str(f"{left} left, {loss}, {speed}" if left else loss, False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.clear()
        console.print_line(text)
        self._bar.refresh()

    def print_row(self, row: MetricsRow) -> None:
        """Print what an evaluation measured."""
        validation = "" if row["val_error"] is None else f", validation {row['val_error']:.2f} %"
        speed = row["images_per_second"]
        self.print(
            f"update {row['step']:,}/{self.progress.run.recipe.steps:,}: loss {row['train_loss']:.4f}, "
            f"error: training {row['train_error']:.2f} %{validation}, "
            f"rate {row['learning_rate']:g}" + ("" if speed is None else f", {speed:.0f} images/s")
        )
