"""What happens between two updates of a run, and in which order.

One callback of `fit`, because the order matters: what a checkpoint of a step holds is the state after
that step's evaluation. What is done is done by its parts: state, reporters, clock, signals, run folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_resnet.recipes.schedules import schedule_of
from keras_resnet.runs import checkpoints
from keras_resnet.runs.checkpoints import State
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import MetricsRow, RunFolder
from keras_resnet.training import hosts
from keras_resnet.training.evaluation import evaluate, logits_of
from keras_resnet.training.reporters import Reporter
from keras_resnet.training.signals import Interrupted, Signals
from keras_resnet.training.state import TrainingState
from keras_resnet.training.timing import Clock


class Diverged(Exception):
    """The loss became NaN or infinite at update `step`."""

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


class RunCallback(keras.callbacks.Callback):
    """The events of a run.

    Args:
        config: the run's settings.
        folder: where metrics and checkpoints go.
        net: what is trained, pixels to probabilities.
        validation: images uint8 `(N, H, W, C)` and labels `(N,)`; N may be 0.
        signals: what tells that the run is to stop.
        reporters: who is told.

    Attributes:
        step: updates made.
        rows: of metrics.csv so far.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        net: keras.Model,
        validation: tuple[np.ndarray, np.ndarray],
        signals: Signals,
        reporters: Sequence[Reporter] = (),
    ):
        super().__init__()
        self.config, self.folder, self.net = config, folder, net
        self.recipe = config.resolved_recipe
        self.validation, self.signals, self.reporters = validation, signals, reporters
        self.logits = logits_of(net)
        self.schedule = schedule_of(self.recipe)
        self.step = 0
        self.rows: list[MetricsRow] = []
        self.clock = Clock()
        self._first_step = 0  # of this session
        self._restored: dict[str, np.ndarray] | None = None

    # --- saving and resuming ---

    def resume(self, arrays: dict[str, np.ndarray], state: State) -> None:
        """Go on from a checkpoint. Its variables are assigned when `fit` begins, or by `assign`."""
        self._restored = arrays
        self.step, self.rows = state["step"], state["rows"]
        self.clock = Clock(state["seconds"], state.get("timed", state["step"]))
        self.signals.saved = self.step

    def assign(self) -> None:
        """Give the variables the checkpoint's values, where there is one to go on from."""
        if self._restored is not None:
            TrainingState(self.net, self.model).restore(self._restored)
            self._restored = None

    def checkpoint(self) -> None:
        """Save the state of this update."""
        arrays = TrainingState(self.net, self.model).capture()
        state: State = {
            "step": self.step,
            "rows": self.rows,
            "seconds": self.clock.seconds,
            "timed": self.clock.timed,
            "settings": self.config.settings(),
        }
        checkpoints.save_checkpoint(self.folder.path, self.step, arrays, state)
        self.signals.saved = self.step

    # --- the events of `fit` ---

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        for reporter in self.reporters:
            reporter.begin(self.step)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Here and not before: `fit` resets the metrics just before this.
        self.assign()
        self._first_step = self.step
        self.clock.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        before, self.step = self.step, self._first_step + batch + 1
        self.clock.count(self.step - before)
        if not math.isfinite(logs["loss"]):
            raise Diverged(self.step)
        for reporter in self.reporters:
            reporter.update(self.step, logs, self.clock)
        last = self.step == self.recipe.steps
        evaluated = last or self.step % self.config.eval_every == 0
        if evaluated:
            self._evaluate(logs)
            self.model.reset_metrics()
        interrupted = self._interrupted(evaluated)
        if last or interrupted or self.step % self.config.checkpoint_every == 0:
            self.checkpoint()
        if evaluated:
            self.folder.write_metrics(self.rows)
        if interrupted:
            raise Interrupted(interrupted, self.step)
        self.clock.start()

    def _interrupted(self, evaluated: bool) -> int:
        """The signal that ends the run at this update, on all its processes, or 0."""
        if hosts.count() == 1 or evaluated or self.step % hosts.AGREE_EVERY == 0:
            return hosts.agree(self.signals.received)
        return 0

    def close(self) -> None:
        """End the reporters."""
        for reporter in self.reporters:
            reporter.close()

    def _evaluate(self, logs: dict[str, float]) -> None:
        for reporter in self.reporters:
            reporter.evaluating(self.step)
        # On JAX `fit` holds the variables' values; to touch `self.model` gives them back.
        assert self.model is not None
        images, labels = self.validation
        loss, error = evaluate(self.logits, images, labels) if len(labels) else (None, None)
        rate = self.clock.rate()
        # Updates that were skipped, because a gradient overflowed in float16, do not count here.
        made = int(self.model.optimizer.iterations)
        row: MetricsRow = {
            "step": self.step,
            "learning_rate": _rounded(float(self.schedule(max(made - 1, 0))), 6),
            "train_loss": _rounded(logs["loss"]),
            "train_error": _rounded(100 - 100 * logs["accuracy"]),
            "val_loss": _rounded(loss),
            "val_error": _rounded(error),
            "images_per_second": _rounded(rate and rate * self.recipe.batch_size, 5),
        }
        self.rows.append(row)
        for reporter in self.reporters:
            reporter.evaluated(row)
        self.clock.start_interval()


def _rounded(value: float | None, digits: int = 9) -> float | None:
    # 9 digits tell every float32 from its neighbours; more would be noise in the file.
    # JSON knows no NaN and no infinity: such a loss is stored as not measured.
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
