"""What happens between two updates of a run: metrics, validation, progress, checkpoints, signals.

One callback of `fit` does it all, because the order matters: what a checkpoint of a step holds is the
state after that step's evaluation.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_resnet import cli, runs
from keras_resnet.cli import UserError
from keras_resnet.config import TrainConfig
from keras_resnet.recipes import schedule_of

EVALUATION_BATCH = 500


class Interrupted(Exception):
    """SIGINT or SIGTERM came; the run is checkpointed at `step`."""

    def __init__(self, signum: int, step: int):
        super().__init__(signum, step)
        self.signum, self.step = signum, step


class Diverged(Exception):
    """The loss became NaN or infinite at update `step`."""

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


def logits_of(net: keras.Model) -> keras.Model:
    """The same net up to its logits: the loss is computed from these, which cannot saturate."""
    return keras.Model(net.input, net.get_layer("head_dense").output)


def evaluate(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy and error in percent of a model that returns logits `(N, classes)`."""
    logits = model.predict(images, batch_size=EVALUATION_BATCH, verbose=0).astype(np.float64)
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    loss = float(np.mean(log_sum - logits[np.arange(len(labels)), labels]))
    return loss, float(np.mean(logits.argmax(axis=1) != labels) * 100)


class Signals:
    """Remember SIGINT and SIGTERM instead of dying of them; a second one has its usual effect."""

    def __enter__(self) -> Signals:
        self.received = 0
        self._old = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        self.__exit__()

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, handler)


class RunCallback(keras.callbacks.Callback):
    """Everything that happens between two updates."""

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        net: keras.Model,
        validation: tuple[np.ndarray, np.ndarray],
        signals: Signals,
    ):
        super().__init__()
        self.config, self.folder, self.net = config, folder, net
        self.recipe = config.resolved_recipe
        self.validation, self.signals = validation, signals
        self.logits = logits_of(net)
        self.step = 0
        self.rows: list[dict[str, float | None]] = []
        # Training alone, without validation and checkpoints, over all sessions; and how many updates
        # that time is of: the first one of a session is not counted.
        self.seconds, self.timed = 0.0, 0
        self.traced = self.estimated = False
        self.restored: dict[str, np.ndarray] | None = None
        self.bar: tqdm | None = None
        self.writer: tf.summary.SummaryWriter | None = None

    # What a resume needs: every variable of the training, by name.
    def variables(self) -> dict[str, keras.Variable]:
        named: dict[str, keras.Variable] = {f"net/{v.path}": v for v in self.net.variables}
        # By path, so that two slots of one shape cannot change places unnoticed.
        named |= {f"optimizer/{v.path}": v for v in self.model.optimizer.variables}
        groups = {
            "metric": [v for m in self.model.metrics for v in m.variables],
            "random": [v for layer in self.model.layers for v in _seed_states(layer)],
        }
        for group, variables in groups.items():
            named |= {f"{group}/{i}": v for i, v in enumerate(variables)}
        return named

    def write_metrics(self) -> None:
        runs.write_atomic(self.folder / "metrics.csv", runs.metrics_csv(self.rows))

    def restore(self, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
        """Continue from a checkpoint: its variables are assigned when `fit` begins."""
        self.restored = arrays
        self.step, self.rows, self.seconds = state["step"], state["rows"], state["seconds"]
        self.timed = state.get("timed", self.step)  # checkpoints of version 0.1.0 do not say it

    def assign(self) -> None:
        """Give the variables the checkpoint's values."""
        assert self.restored is not None
        variables = self.variables()
        self._name_by_path()
        if variables.keys() != self.restored.keys():
            different = sorted(variables.keys() ^ self.restored.keys())
            raise UserError(
                f"the checkpoint in {self.folder} does not fit this version of the program "
                f"({len(different)} variables differ, e.g. {different[0]}); use --restart"
            )
        for name, variable in variables.items():
            variable.assign(self.restored[name])
        self.restored = None

    def _name_by_path(self) -> None:
        """Rename what version 0.1.0 kept by position: the optimizer's variables, in their order."""
        assert self.restored is not None
        by_position = {f"optimizer/{i}": v for i, v in enumerate(self.model.optimizer.variables)}
        if by_position.keys() <= self.restored.keys():
            for old, variable in by_position.items():
                self.restored[f"optimizer/{variable.path}"] = self.restored.pop(old)

    def checkpoint(self) -> None:
        arrays = {name: v.numpy() for name, v in self.variables().items()}
        state = {
            "step": self.step, "rows": self.rows, "seconds": self.seconds, "timed": self.timed,
        }  # fmt: skip
        runs.save_checkpoint(self.folder, self.step, arrays, state)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.bar = tqdm(
            total=self.recipe.steps,
            initial=self.step,
            unit="update",
            disable=None,  # where stderr is no terminal, the line an evaluation is progress enough
            dynamic_ncols=True,
        )
        with self.logging():
            self.writer = tf.summary.create_file_writer(str(self.folder / "tensorboard"))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Here and not before: `fit` resets the metrics just before this.
        if self.restored is not None:
            self.assign()
        self.interval_step, self.interval_seconds = self.step, 0.0
        self.start_step = self.step
        self.clock = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        now = time.perf_counter()
        before, self.step = self.step, self.start_step + batch + 1
        if not self.traced:
            # The first call paid for tracing and compiling: count from the second on.
            self.traced = True
            self.interval_step = self.step
        else:
            self.interval_seconds += now - self.clock
            self.seconds += now - self.clock
            self.timed += self.step - before
        self.clock = now
        if not math.isfinite(logs["loss"]):
            raise Diverged(self.step)
        self.show(logs)
        # The order matters: what the checkpoint of this step holds is what follows the evaluation.
        evaluated = self.step % self.config.eval_every == 0 or self.step == self.recipe.steps
        if evaluated:
            self.evaluate(logs)
            self.model.reset_metrics()
        interrupted = self.signals.received
        if (
            self.step % self.config.checkpoint_every == 0
            or self.step == self.recipe.steps
            or interrupted
        ):
            self.checkpoint()
        if evaluated:
            self.write_metrics()
        if interrupted:
            raise Interrupted(interrupted, self.step)
        self.clock = time.perf_counter()

    def evaluate(self, logs: dict[str, float]) -> None:
        images, labels = self.validation
        val_loss, val_error = evaluate(self.logits, images, labels) if len(labels) else (None, None)
        updates = self.step - self.interval_step
        rate = updates * self.recipe.batch_size / self.interval_seconds if updates else None
        self.rows.append(
            {
                "step": self.step,
                "learning_rate": _rounded(self.learning_rate(self.step - 1), 6),
                "train_loss": _rounded(logs["loss"]),
                "train_error": _rounded(100 - 100 * logs["accuracy"]),
                "val_loss": _rounded(val_loss),
                "val_error": _rounded(val_error),
                "images_per_second": _rounded(rate, 5),
            }
        )
        self.report(self.rows[-1])
        self.interval_step, self.interval_seconds = self.step, 0.0

    def learning_rate(self, iteration: int) -> float:
        """Rate of the update that follows `iteration` updates."""
        return float(schedule_of(self.recipe)(iteration))

    def rate(self) -> float:
        """Images a second since the last evaluation."""
        updates = self.step - self.interval_step
        return updates * self.recipe.batch_size / max(self.interval_seconds, 1e-9)

    def show(self, logs: dict[str, float]) -> None:
        self.bar.update(self.step - self.bar.n)
        done = self.step - self.start_step
        if done % 10 == 0:
            self.bar.set_postfix_str(
                f"loss {logs['loss']:.3f}, error {100 - 100 * logs['accuracy']:.1f} %, "
                f"{self.rate():.0f} images/s",
                refresh=False,
            )
        # On a GPU, which comes here once in up to 50 updates, the 20th may not be seen.
        if not self.estimated and done >= 20 and self.step > self.interval_step:
            self.estimated = True
            remaining = self.recipe.steps - self.step
            if remaining > 100:
                seconds = remaining * self.recipe.batch_size / self.rate()
                self.say(
                    f"first {done} updates: {self.rate():.0f} images/s; the remaining "
                    f"{remaining:,} updates will take about {duration(seconds)}"
                )

    def report(self, row: dict[str, float | None]) -> None:
        validation = "" if row["val_error"] is None else f", validation {row['val_error']:.2f} %"
        speed = (
            "" if row["images_per_second"] is None else f", {row['images_per_second']:.0f} images/s"
        )
        self.say(
            f"update {row['step']:,}/{self.recipe.steps:,}: loss {row['train_loss']:.4f}, "
            f"error: training {row['train_error']:.2f} %{validation}, "
            f"rate {row['learning_rate']:g}{speed}"
        )
        self.log(row)

    def log(self, row: dict[str, float | None]) -> None:
        """Write a row for TensorBoard."""
        if self.writer is None:
            return
        with self.logging(), self.writer.as_default(step=int(row["step"] or 0)):
            for name, value in row.items():
                if name != "step" and value is not None:
                    tf.summary.scalar(name, value)
            self.writer.flush()

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """What TensorBoard gets is in metrics.csv too, so a full disk is no reason to stop here."""
        try:
            yield
        except (tf.errors.OpError, OSError) as error:
            self.say(f"warning: the TensorBoard log could not be written ({error})")

    def say(self, text: str) -> None:
        self.bar.clear()
        cli.tell(text)
        self.bar.refresh()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.writer is not None:
            with self.logging():
                self.writer.close()


def _seed_states(layer: keras.Layer) -> list[keras.Variable]:
    return [v for v in layer.variables if v.path.endswith("seed_generator_state")]


def _rounded(value: float | None, digits: int = 9) -> float | None:
    # 9 digits tell every float32 from its neighbours; more would be noise in the file.
    return None if value is None else float(f"{value:.{digits}g}")


def duration(seconds: float) -> str:
    """A duration in the words of a progress report, e.g. "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
