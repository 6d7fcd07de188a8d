"""Callbacks that people own: Keras's, W&B's and MLflow's, in a training that is stopped and resumed."""

import csv
import importlib.util
import json
import os
import signal

import keras
import numpy as np
import pytest

from keras_resnet import TrainConfig, train
from keras_resnet.data import datasets
from keras_resnet.errors import UserError
from keras_resnet.runs.folder import RunFolder
from keras_resnet.training.signals import Interrupted

pytestmark = pytest.mark.usefixtures("small_synthetic")
NAMES = {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "step"}


def config(folder, steps=40, log="tensorboard"):
    return TrainConfig(
        depth=8, dataset="synthetic", val_size=300, batch_size=32, steps=steps, eval_every=10,
        checkpoint_every=10, output_dir=str(folder), name="x", log=log,
    )  # fmt: skip


class Record(keras.callbacks.Callback):
    """Every event, and how the model that it sees classifies."""

    def __init__(self):
        super().__init__()
        self.events = []

    def on_train_begin(self, logs=None):
        self.events.append(("train begins", type(self.model.optimizer).__name__))

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(("begin", epoch))

    def on_epoch_end(self, epoch, logs=None):
        assert set(logs) == NAMES
        data = datasets.load("synthetic")
        probabilities = self.model.predict(data.test_images[:8], verbose=0)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        self.events.append(("end", epoch, logs["step"]))

    def on_train_end(self, logs=None):
        self.events.append(("train ends",))


def train_twice(config, make=list):
    """Stopped by a SIGTERM at the second evaluation, and resumed."""
    kill = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epoch == 1 and os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(Interrupted):
        train(config, callbacks=[*make(), kill])
    train(config, callbacks=make())


def test_an_epoch_is_an_evaluation_and_goes_on_after_a_resume(tmp_path):
    records = [Record(), Record()]
    left = iter(records)
    train_twice(config(tmp_path), lambda: [next(left)])
    begin = ("train begins", "SGD")
    assert records[0].events == [
        begin, ("begin", 0), ("end", 0, 10), ("begin", 1), ("end", 1, 20), ("begin", 2), ("train ends",)
    ]  # fmt: skip
    assert records[1].events == [
        begin, ("begin", 2), ("end", 2, 30), ("begin", 3), ("end", 3, 40), ("train ends",)
    ]  # fmt: skip


def test_keras_s_own_callbacks(tmp_path):
    """Each evaluation stands once in the log of a run that is stopped and resumed."""
    train_twice(
        config(tmp_path),
        lambda: [
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv"), append=True),
            keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), save_best_only=True),
            keras.callbacks.EarlyStopping(patience=50, restore_best_weights=True),
            keras.callbacks.TerminateOnNaN(),
        ],
    )
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["step"]) for row in rows] == [10, 20, 30, 40]
    assert set(rows[0]) == NAMES | {"epoch"}
    net = keras.models.load_model(tmp_path / "best.keras")
    assert net.predict(datasets.load("synthetic").test_images, verbose=0).shape == (500, 10)


def test_a_run_that_a_callback_stops_is_finished_with_its_best_weights(tmp_path):
    stop = keras.callbacks.EarlyStopping(mode="max", patience=1, restore_best_weights=True)
    accuracy = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="val_accuracy", save_best_only=True
    )
    train(config(tmp_path, steps=400), callbacks=[stop, accuracy])
    rows = RunFolder(tmp_path / "x/seed-0").read_metrics()
    assert accuracy.best == max(1 - row["val_error"] / 100 for row in rows)
    folder = tmp_path / "x/seed-0"
    results = json.loads((folder / "results.json").read_text())
    assert results["stopped_early"] is True and results["steps"] < 400
    net = keras.models.load_model(folder / "model.keras")
    trained = [w for x in net.layers if "shortcut" not in x.name for w in x.get_weights()]
    for best, saved in zip(stop.best_weights, trained, strict=True):
        np.testing.assert_array_equal(best, saved)
    before = (folder / "results.json").read_bytes()
    train(config(tmp_path, steps=400), callbacks=[stop])
    assert (folder / "results.json").read_bytes() == before, "finished: not trained on"


def test_a_stop_before_the_first_evaluation_waits_for_it(tmp_path):
    """The callbacks come from a generator, and the first of them stops at once."""

    class Stop(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.stop_training = True

    train(config(tmp_path), callbacks=(make() for make in (Stop, Record)))
    assert json.loads((tmp_path / "x/seed-0/results.json").read_text())["steps"] == 10


def test_what_is_refused_before_training(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="leave the learning rate to the recipe"):
        train(config(tmp_path), callbacks=[keras.callbacks.ReduceLROnPlateau()])
    with pytest.raises(TypeError, match="`callbacks` must be Keras callbacks. Received: 'Early'"):
        train(config(tmp_path), callbacks=["Early"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"`log` wandb needs wandb.*\[wandb\]"):
        train(config(tmp_path, log="wandb"))
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb", "ignore::UserWarning:wandb")
def test_weights_and_biases_own_callback(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.integration.keras import WandbMetricsLogger

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    record = wandb.init(project="test", dir=tmp_path)
    train_twice(config(tmp_path), lambda: [WandbMetricsLogger()])
    seen = dict(record.summary)
    record.finish()
    assert seen["epoch/step"] == 40 and seen["epoch/epoch"] == 3
    assert 0 <= seen["epoch/val_accuracy"] <= 1


@pytest.mark.filterwarnings("ignore")  # of the packages that MLflow brings; none is of ours
def test_mlflow_s_own_callback(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    from mlflow.keras import MlflowCallback

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    artifacts = (tmp_path / "artifacts").as_uri()  # else in the working folder
    with mlflow.start_run(experiment_id=mlflow.create_experiment("test", artifacts)) as record:
        train_twice(config(tmp_path), lambda: [MlflowCallback()])
    history = mlflow.MlflowClient().get_metric_history(record.info.run_id, "val_loss")
    assert len(history) == 4


@pytest.mark.filterwarnings("ignore")  # of the packages themselves
@pytest.mark.parametrize("log", ["wandb", "mlflow"])
def test_a_log_goes_on_in_its_record(log, tmp_path, monkeypatch):
    package = pytest.importorskip(log)
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    if log == "mlflow":
        package.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    train_twice(config(tmp_path, log=log))
    folder = tmp_path / "x/seed-0"
    record = (folder / f"{log}.id").read_text()
    if log == "wandb":
        assert len(list(folder.glob(f"wandb/offline-run-*-{record}"))) == 2  # a session each
        return
    client = package.MlflowClient()
    history = client.get_metric_history(record, "val_error")
    assert [point.step for point in history] == [10, 20, 30, 40]
    assert client.get_run(record).info.status == "FINISHED"
    assert client.get_run(record).data.params["depth"] == "8"
