"""Log the rows of metrics.csv elsewhere: TensorBoard, Weights & Biases, MLflow. Steps are updates.

A log's id is kept in the run folder, so that a resume continues that log.
"""

import contextlib
import functools
import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from keras_resnet.runs import files
from keras_resnet.runs.run import Run
from keras_resnet.training.progress import RunCallback, print_above_bar

# Two functions: write the numbers of an evaluation and its update; end the log for this session.
Writer = tuple[Callable[[dict[str, float], int], object], Callable[[], object]]


class Log(RunCallback):
    """Opens the run's log at the first evaluation, and writes a row to it at each."""

    _writer: Writer | None = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self.progress.evaluation_due:
            return
        row, log = self.progress.rows[-1], self.run.config.log
        values = {name: value for name, value in row.items() if isinstance(value, float)}
        with self._warning_of_errors():
            self._writer = self._writer or OPENERS[log](self.run)
            self._writer[0](values, self.progress.step)

    def on_train_end(self, logs: Any = None) -> None:
        if self._writer is not None:
            with self._warning_of_errors():
                self._writer[1]()

    @contextlib.contextmanager
    def _warning_of_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # metrics.csv has the same numbers: no reason to end the run
            log = self.run.config.log
            print_above_bar(f"warning: the log ({log}) could not be written ({error})")


def _tensorboard(run: Run) -> Writer:
    from tensorboard import summary

    folder = run.folder.path / "tensorboard"
    folder.mkdir(exist_ok=True)
    writer = summary.Writer(str(folder))

    def write(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return write, writer.close


def _wandb(run: Run) -> Writer:
    import wandb

    log = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "keras-resnet"),
        name=str(run),
        config=run.settings(),
        dir=run.folder.path,
        id=_kept_id(run, lambda: secrets.token_hex(4)),
        resume="allow",
    )
    return lambda values, step: log.log(values, step=step), log.finish


def _mlflow(run: Run) -> Writer:
    import mlflow

    client = mlflow.MlflowClient()

    def create() -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "keras-resnet")
        experiment = client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else client.create_experiment(name)
        log: str = client.create_run(place, run_name=str(run)).info.run_id
        mlflow.log_params(run.settings(), run_id=log)
        return log

    log = _kept_id(run, create)
    client.update_run(log, status="RUNNING")
    write = functools.partial(mlflow.log_metrics, run_id=log)
    return write, lambda: client.set_terminated(log)


def _kept_id(run: Run, create: Callable[[], str]) -> str:
    """The log's id from the run folder; without one there, create the log and keep its id."""
    path = run.folder.path / f"{run.config.log}.id"
    if data := files.read_bytes(path):
        return data.decode()
    log = create()
    files.write_atomic(path, log)
    return log


OPENERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
