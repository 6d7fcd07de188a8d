"""The callbacks that a user passes to `train`, driven by one of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_resnet.errors import UserError
from keras_resnet.training.progress import Progress

# The recipe sets the learning rate, and our checkpoints resume the run.
REFUSED = ("LearningRateScheduler", "ReduceLROnPlateau", "BackupAndRestore")


class Forward(keras.callbacks.Callback):
    """Drives the user's callbacks: to them an epoch is an evaluation, and the model is the net that is saved.

    Their `logs` have Keras's names: loss, accuracy, val_loss, val_accuracy, and learning_rate and step.
    """

    def __init__(
        self, progress: Progress, net: keras.Model, users: Sequence[keras.callbacks.Callback]
    ):
        super().__init__()
        self.progress, self.net = progress, net
        self.users = keras.callbacks.CallbackList(list(users), model=net)
        self.net.stop_training = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.net.optimizer = self.model.optimizer  # loggers read its settings
        self.users.on_train_begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.users.on_epoch_begin(len(self.progress.rows))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step, rows = self.progress.step, self.progress.rows
        self.users.on_train_batch_end(step - 1, dict(logs or {}))
        if self.progress.evaluation_due:
            assert self.model is not None  # on JAX this gives the values back
            self.users.on_epoch_end(len(rows) - 1, keras_logs(rows[-1]))
        if self.net.stop_training:
            self.progress.stopped_early = not self.progress.ended
        elif self.progress.evaluation_due and not self.progress.ended:
            self.users.on_epoch_begin(len(rows))

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


def keras_logs(row: Any) -> dict[str, float]:
    """A row of metrics.csv under Keras's names, without what was not measured."""
    named = {"loss": row["train_loss"], "val_loss": row["val_loss"]}
    named |= {"learning_rate": row["learning_rate"], "step": row["step"]}
    for name, error in (("accuracy", row["train_error"]), ("val_accuracy", row["val_error"])):
        named[name] = None if error is None else 1 - error / 100
    return {name: value for name, value in named.items() if value is not None}
