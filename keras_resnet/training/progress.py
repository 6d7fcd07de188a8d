"""How far a run is: what is shown on the terminal, and what a checkpoint keeps of it."""

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
    """What a run has done, over all its sessions; `newest` is the checkpoint that it goes on from."""

    def __init__(self, run: Run, newest: tuple[Arrays, State] | None = None):
        arrays, state = newest or ({}, State(step=0, rows=[], seconds=0.0))
        self.run = run
        self.signals = Signals()  # that ask this session to stop
        self.signum = 0  # of the signal that stops it
        # Variables of the checkpoint, until they are restored.
        self.arrays = {name: array for name, array in arrays.items() if name[:5] != "best/"}
        # Those of the net of the lowest validation error so far, by path.
        self.best = {name[5:]: array for name, array in arrays.items() if name[:5] == "best/"}
        self.keep = "last"  # which net is saved: "last" or "best"
        self.step, self.rows = state["step"], state["rows"]  # updates made; rows of metrics.csv
        self.first_step = self.step  # from which this session goes on
        # Spent on updates, without evaluations and checkpoints; and how many took them. The first call of
        # a session pays for tracing and compiling and is not counted.
        self.seconds, self.timed = state["seconds"], state.get("timed", self.step)
        self.stopped_early = state.get("stopped_early", False)  # by a callback of the user's
        self.signals.saved = self.step
        self._last: float | None = None  # when the last update ended
        self.begin_interval()

    def state(self) -> State:
        """What a checkpoint holds besides the variables."""
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
        """The row of the net that is saved: the last, or of the lowest validation error, then loss."""
        if self.keep == "last":
            return self.rows[-1]
        return min(self.rows, key=lambda row: (row["val_error"] or 0.0, row["val_loss"] or 0.0))

    @property
    def evaluation_due(self) -> bool:
        """Whether the run is evaluated after this update."""
        every = self.run.config.eval_every
        return self.step == self.run.recipe.steps or self.step % every == 0

    def count(self, step: int) -> None:
        """Count the updates up to `step`, and the time since `resume_clock` as theirs."""
        if self._last is not None:
            self.seconds += time.perf_counter() - self._last
            self.timed += step - self.step
        self.step = step

    def resume_clock(self) -> None:
        """Restart the clock: what was done since the last update does not count."""
        self._last = time.perf_counter()

    def begin_interval(self) -> None:
        """Begin a new interval for `images_per_second`."""
        self._interval = self.seconds, self.timed

    def images_per_second(self, at_least: int = 1) -> float | None:
        """Speed in this interval; None where fewer than `at_least` updates were timed."""
        seconds, updates = self.seconds - self._interval[0], self.timed - self._interval[1]
        images = updates * self.run.recipe.batch_size
        return images / max(seconds, 1e-9) if updates >= at_least else None


class RunCallback(keras.callbacks.Callback):
    """A callback of ours, which sees the progress of its run and the net that is saved."""

    def __init__(self, progress: Progress, net: Any = None):
        super().__init__()
        self.progress, self.run, self.net = progress, progress.run, net


class ProgressBar(RunCallback):
    """A bar where stderr is a terminal, and an estimate of the time after the first updates."""

    def __init__(self, progress: Progress):
        super().__init__(progress)
        self._speed: float | None = None  # images per second
        self._bar = tqdm(
            total=self.run.recipe.steps,
            initial=progress.step,
            # None: without a terminal, the line per evaluation is progress enough.
            disable=None if hosts.is_first() else True,
            dynamic_ncols=True,
            # Not tqdm's {remaining}, which counts compiling and validating as updates.
            bar_format="{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}",
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step, known, recipe = self.progress.step, self._speed is not None, self.run.recipe
        made = step - self.progress.first_step
        self._speed = self.progress.images_per_second(ESTIMATE_AFTER) or self._speed
        remaining, speed, left = recipe.steps - step, "", ""
        if self._speed:
            seconds = recipe.batch_size / self._speed  # of an update
            speed, left = f"{self._speed:.0f} images/s", console.duration(remaining * seconds)
        if self._speed and not known and remaining > 100:
            later = console.duration((remaining + self.run.later * recipe.steps) * seconds)
            later = f" ({later} with the later seeds)" if self.run.later else ""
            print_above_bar(
                f"first {made} updates: {speed}; the remaining {remaining:,} updates will take about "
                f"{left}{later}"
            )
        if step % 10 == 0 and logs is not None:
            loss = f"loss {logs['loss']:.3f}"
            self._bar.set_postfix_str(f"{left} left, {loss}, {speed}" if left else loss, False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        self._bar.close()


def print_above_bar(text: str) -> None:
    """Print a line above the bar, if there is one."""
    with tqdm.external_write_mode():
        console.print_line(text)
