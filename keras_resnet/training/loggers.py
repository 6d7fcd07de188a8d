"""Log the rows of metrics.csv elsewhere: TensorBoard, Weights & Biases, MLflow. Steps are updates.

The record's id is kept in the run folder, so that a resume goes on in it.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Callable
from typing import Any

import keras

from keras_resnet import console
from keras_resnet.errors import missing
from keras_resnet.runs import files
from keras_resnet.runs.run import Run
from keras_resnet.training.progress import Progress

# Two functions: write the numbers of an evaluation and its update; close the record for this session.
Record = tuple[Callable[[dict[str, float], int], object], Callable[[], object]]


class Log(keras.callbacks.Callback):
    """Opens the run's record at the first evaluation, and writes a row to it at each."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = progress
        self._record: Record | None = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.progress.evaluation_due:
            return
        run, row = self.progress.run, self.progress.rows[-1]
        values = {name: value for name, value in row.items() if isinstance(value, float)}
        try:
            self._record = self._record or OPENERS[run.config.log](run)
            self._record[0](values, self.progress.step)
        except Exception as error:  # metrics.csv has the same numbers: no reason to end the run
            console.print_line(
                f"warning: the log ({run.config.log}) could not be written ({error})"
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._record is not None:
            self._record[1]()


def _tensorboard(run: Run) -> Record:
    from tensorboard.summary import Writer

    folder = run.folder.path / "tensorboard"
    folder.mkdir(exist_ok=True)
    writer = Writer(str(folder))

    def write(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return write, writer.close


def _wandb(run: Run) -> Record:
    import wandb

    record = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "keras-resnet"),
        name=str(run),
        config=run.settings(),
        dir=run.folder.path,
        id=_kept_id(run, lambda: secrets.token_hex(4)),
        resume="allow",
    )
    return lambda values, step: record.log(values, step=step), record.finish


def _mlflow(run: Run) -> Record:
    import mlflow

    client = mlflow.MlflowClient()

    def create() -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "keras-resnet")
        experiment = client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else client.create_experiment(name)
        record: str = client.create_run(place, run_name=str(run)).info.run_id
        for key, value in run.settings().items():
            client.log_param(record, key, value)
        return record

    record = _kept_id(run, create)
    client.update_run(record, status="RUNNING")

    def write(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            client.log_metric(record, name, value, step=step)

    return write, lambda: client.set_terminated(record)


def _kept_id(run: Run, create: Callable[[], str]) -> str:
    """The record's id from the run folder; without one there, create the record and keep its id."""
    path = run.folder.path / f"{run.config.log}.id"
    if data := files.read_bytes(path):
        return data.decode()
    record = create()
    files.write_atomic(path, record)
    return record


OPENERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}


def check_installed(log: str) -> None:
    """Raise UserError where the package of a log is missing."""
    if importlib.util.find_spec(log) is None:
        raise missing(log, f"`log` {log}")
