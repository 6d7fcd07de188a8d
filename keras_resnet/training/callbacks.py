"""What happens after each update of a run: small callbacks of Keras, one duty each.

`trainer._fit` puts them in order: a step is evaluated, the user's callbacks are called, then it is saved.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from keras import Model, callbacks

from keras_resnet.errors import DIVERGED, UserError
from keras_resnet.inference.evaluate import loss_and_error
from keras_resnet.recipes.schedules import schedule_of
from keras_resnet.runs import checkpoint
from keras_resnet.runs.folder import MetricsRow
from keras_resnet.training import backends, hosts
from keras_resnet.training.net import logits_of
from keras_resnet.training.progress import Progress, RunCallback, print_above_bar

# Updates between which several processes tell each other of a signal that one of them got.
AGREE_EVERY = 10
# The recipe sets the learning rate, and our checkpoints resume the run.
REFUSED = (callbacks.LearningRateScheduler, callbacks.ReduceLROnPlateau, callbacks.BackupAndRestore)


class Restore(RunCallback):
    """Gives the variables a checkpoint's values once `fit` has begun and reset the metrics."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.progress.step:
            checkpoint.restore(self.net, self.model, self.progress.arrays)
            self.progress.arrays = {}


class Count(RunCallback):
    """Counts and times the updates, and ends a run whose loss is NaN or infinite."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # With several updates per call of the device, Keras comes here after the last of them.
        self.progress.count(self.progress.first_step + batch + 1)
        if not math.isfinite(logs["loss"]):
            raise diverged("the loss", self.progress.step)


class Evaluate(RunCallback):
    """Adds a row to the metrics, with the error on these images, and remembers the best net so far."""

    def __init__(self, progress: Progress, net: Model, images: np.ndarray, labels: np.ndarray):
        super().__init__(progress, net)
        self.logits, self.images, self.labels = logits_of(net), images, labels
        self.schedule = schedule_of(self.run.recipe)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self.progress.evaluation_due:
            return
        model: Any = self.model  # on JAX, reading it updates the net's variables
        loss, error = None, None
        if len(self.labels):
            logits = backends.current().predict(self.logits, self.images)
            loss, error = loss_and_error(logits, self.labels)
        # Updates that were skipped, because a gradient overflowed in float16, do not count here.
        made = int(model.optimizer.iterations)
        row: MetricsRow = {
            "step": self.progress.step,
            "learning_rate": _rounded(float(self.schedule(max(made - 1, 0))), 6),
            "train_loss": _rounded(logs["loss"]),
            "train_error": _rounded(100 - 100 * logs["accuracy"]),
            "val_loss": _rounded(loss),
            "val_error": _rounded(error),
            "images_per_second": _rounded(self.progress.images_per_second(), 5),
        }
        self.progress.rows.append(row)
        if self.progress.keep == "best" and self.progress.kept is row:
            self.progress.best = {v.path: v.numpy().copy() for v in self.net.variables}
        self.progress.begin_interval()
        model.reset_metrics()
        validation = "" if error is None else f", validation {row['val_error']:.2f} %"
        speed = row["images_per_second"]
        print_above_bar(
            f"update {row['step']:,}/{self.run.recipe.steps:,}: loss {row['train_loss']:.4f}, "
            f"error: training {row['train_error']:.2f} %{validation}, "
            f"rate {row['learning_rate']:g}" + ("" if speed is None else f", {speed:.0f} images/s")
        )


class CallUsers(RunCallback):
    """Calls the user's callbacks: to them an epoch is an evaluation, and the model has no augmentation."""

    def __init__(self, progress: Progress, net: Model, users: Sequence[callbacks.Callback]):
        super().__init__(progress, net)
        for user in users:  # Keras asks a compiled model, which the net is not
            if vars(user).get("mode") == "auto" and str(user.monitor).endswith("accuracy"):
                user.mode = "max"
        self.users = callbacks.CallbackList(list(users), model=net)
        self.net.stop_training = False

    def on_train_begin(self, logs: Any = None) -> None:
        self.net.optimizer = self.model.optimizer  # loggers read its settings
        self.users.on_train_begin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.users.on_epoch_begin(len(self.progress.rows))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step, rows = self.progress.step, self.progress.rows
        self.users.on_train_batch_end(step - 1, dict(logs or {}))
        if self.progress.evaluation_due:
            _ = self.model  # on JAX, reading it updates the net's variables
            self.users.on_epoch_end(len(rows) - 1, keras_logs(rows[-1]))
        if self.net.stop_training and rows:  # after the first evaluation at the earliest
            self.progress.stopped_early = not self.progress.ended
        elif self.progress.evaluation_due and not self.progress.ended:
            self.users.on_epoch_begin(len(rows))

    def on_train_end(self, logs: Any = None) -> None:
        _ = self.model  # as above: EarlyStopping may give the net its best weights here
        self.users.on_train_end()


class Save(RunCallback):
    """Saves checkpoints and metrics.csv, and ends `fit` where a signal or a user's callback asks for it.

    The last callback, because it starts the clock again.
    """

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        progress, run = self.progress, self.run
        if progress.evaluation_due or progress.step % AGREE_EVERY == 0 or hosts.count() == 1:
            progress.signum = hosts.agree(progress.signals.received)
        if progress.signum or progress.stopped_early:
            self.model.stop_training = True
        due = progress.step % run.config.checkpoint_every == 0
        if due or progress.signum or progress.step == run.recipe.steps:
            save_checkpoint(progress, self.net, self.model)
            progress.signals.saved = progress.step
        if progress.evaluation_due:
            hosts.on_first(run.folder.write_metrics, progress.rows)
        progress.resume_clock()


def save_checkpoint(progress: Progress, net: Model, model: Model) -> None:
    """Save the state of this update. Raises UserError, exit code 3, for variables that are not finite."""
    arrays = checkpoint.capture(net, model)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise diverged(name.removeprefix("net/"), progress.step)
    arrays |= {f"best/{path}": value for path, value in progress.best.items()}
    hosts.on_first(checkpoint.save, progress.run.folder.path, arrays, progress.state())


def diverged(what: str, step: int) -> UserError:
    """The error for a run that holds NaN or infinity."""
    return UserError(
        f"{what} became NaN or infinite at or before update {step}: training has diverged. "
        "Try train's `restart` with a smaller `learning_rate` or with `warmup_steps`",
        exit_code=DIVERGED,
    )


def _rounded(value: float | None, digits: int = 9) -> float | None:
    # 9 digits tell every float32 from its neighbours; more would be noise in the file.
    # JSON knows no NaN and no infinity: such a loss is stored as not measured.
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def refuse_callbacks(users: Iterable[callbacks.Callback]) -> list[callbacks.Callback]:
    """The callbacks as a list. Raises UserError for one that would set the learning rate or resume by itself.

    Raises TypeError where one is none.
    """
    for callback in (users := list(users) if isinstance(users, Iterable) else [users]):
        if not isinstance(callback, callbacks.Callback):
            raise TypeError(f"`callbacks` must be Keras callbacks. Received: {callback!r:.80}")
        if isinstance(callback, REFUSED):
            raise UserError(
                f"`callbacks` must leave the learning rate to the recipe and resuming to the run folder. "
                f"Received: {type(callback).__name__}; choose a `recipe` and its `schedule` instead"
            )
    return users


def keras_logs(row: Any) -> dict[str, float]:
    """A row of metrics.csv under Keras's names, without what was not measured."""
    named = {"loss": row["train_loss"], "val_loss": row["val_loss"]}
    named |= {"learning_rate": row["learning_rate"], "step": row["step"]}
    for name, error in (("accuracy", row["train_error"]), ("val_accuracy", row["val_error"])):
        named[name] = None if error is None else 1 - error / 100
    return {name: value for name, value in named.items() if value is not None}
