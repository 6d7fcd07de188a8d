"""The callbacks that a user passes to `train`, driven by one of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_resnet.errors import UserError
from keras_resnet.runs.folder import MetricsRow
from keras_resnet.runs.run import Run
from keras_resnet.training.progress import Progress

# The recipe sets the learning rate, and our checkpoints resume the run.
REFUSED = ("LearningRateScheduler", "ReduceLROnPlateau", "BackupAndRestore")


class Forward(keras.callbacks.Callback):
    """Drives the user's callbacks: to them an epoch is an evaluation, and the model is the net that is saved.

    Their `logs` have Keras's names: loss, accuracy, val_loss, val_accuracy, and learning_rate and step.
    """

    def __init__(
        self,
        run: Run,
        progress: Progress,
        net: keras.Model,
        users: Sequence[keras.callbacks.Callback],
    ):
        super().__init__()
        self.run, self.progress, self.net = run, progress, net
        self.users = keras.callbacks.CallbackList(list(users), model=net)
        self.net.stop_training = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.net.optimizer = self.model.optimizer  # loggers read its settings
        self.users.on_train_begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.users.on_epoch_begin(len(self.progress.rows))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = self.progress.step
        self.users.on_train_batch_end(step - 1, dict(logs or {}))
        if self.run.evaluates(step):
            assert self.model is not None  # on JAX this gives the values back
            self.users.on_epoch_end(
                len(self.progress.rows) - 1, _keras_logs(self.progress.rows[-1])
            )
        if self.net.stop_training:
            self.progress.stopped_early = step < self.run.recipe.steps
        elif self.run.evaluates(step) and step < self.run.recipe.steps:
            self.users.on_epoch_begin(len(self.progress.rows))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        assert self.model is not None  # EarlyStopping may give the net its best weights here
        self.users.on_train_end()


def refuse_callbacks(users: Sequence[keras.callbacks.Callback]) -> None:
    """Raise UserError for a callback that would set the learning rate or resume by itself."""
    for callback in users:
        names = {cls.__name__ for cls in type(callback).__mro__}
        if refused := names & set(REFUSED):
            raise UserError(
                f"`callbacks` must leave the learning rate to the recipe and resuming to the run folder. "
                f"Received: {refused.pop()}; choose a `recipe` and its numbers instead"
            )


def _keras_logs(row: MetricsRow) -> dict[str, float]:
    values = {
        "loss": row["train_loss"],
        "accuracy": _accuracy(row["train_error"]),
        "val_loss": row["val_loss"],
        "val_accuracy": _accuracy(row["val_error"]),
        "learning_rate": row["learning_rate"],
        "step": row["step"],
    }
    return {name: value for name, value in values.items() if value is not None}


def _accuracy(error: float | None) -> float | None:
    return None if error is None else 1 - error / 100
