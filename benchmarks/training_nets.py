"""The training contenders of Keras, on the backend that the worker has: ours, stock Keras, the bare step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np

from benchmarks.worker import Turns
from keras_resnet.data import augmentation, stream
from keras_resnet.data.dataset import Dataset
from keras_resnet.nets.layers import BatchNormalization
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunFolder
from keras_resnet.training import backends, devices
from keras_resnet.training.callback import RunCallback
from keras_resnet.training.model import build_net, chunks_of_batches, training_model
from keras_resnet.training.reporters import TensorBoard, Terminal
from keras_resnet.training.signals import Signals

NEVER = 64_000  # updates: the end of the run, and the first validation and checkpoint


def multiply_adds(net: keras.Model) -> int:
    """Multiply-adds of one image's forward pass: convolutions and dense layers, nothing else.

    As is usual, those with padding's zeros count.
    """
    total = 0
    for layer in net.layers:
        if isinstance(layer, keras.layers.Conv2D):
            total += int(np.prod(layer.output.shape[1:3])) * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, keras.layers.Dense):
            total += int(np.prod(layer.kernel.shape))
    return total


def load(folder: Path) -> Dataset:
    """The data set that `prepare` left in `folder`."""
    name, *class_names = (folder / "names.txt").read_text().split("\n")
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    return Dataset(name, tuple(class_names), images, labels, images[:1], labels[:1])


class _Ticks(keras.callbacks.Callback):
    def __init__(self, turns: Turns):
        super().__init__()
        self.turns = turns

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.turns.tick()


def train(spec: dict[str, Any], turns: Turns) -> NoReturn:
    """`ours_auto`, `ours_float32`, `stock_float32`: the path of train.py; `bare`: only its step.

    The first three are `model.fit` with the run's own callback and stream; stock Keras differs in
    the class of the batch normalization alone, so it has our other gains too.
    """
    kind = spec["contender"]
    settings = TrainConfig(
        depth=spec["depth"],
        batch_size=spec["batch"],
        # The warm-up's small rate: the time of an update is the same, and nothing diverges.
        learning_rate=0.01,
        warmup_steps=0,
        steps=NEVER,
        eval_every=NEVER,
        checkpoint_every=NEVER,
        precision="float32" if kind.endswith("float32") else "auto",
    )
    precision, _ = devices.precision(settings.precision)
    data = load(Path(spec["folder"]))
    start = time.perf_counter()
    net = build_net(settings, data, 0, precision)
    if kind.startswith("stock"):
        net = keras.models.clone_model(net, clone_function=_with_stock_normalization)
    model = training_model(settings, data, net)
    turns.facts |= {
        "build_seconds": round(time.perf_counter() - start, 2),
        "precision": precision,
        "multiply_adds": multiply_adds(net),
        "parameters": int(sum(np.prod(v.shape) for v in net.trainable_variables)),
    }
    train, _ = stream.split(len(data.train_labels), 5_000, 0)
    if kind == "bare":
        turns.forever(_bare_step(model, data, train[: spec["batch"]]))
    with tempfile.TemporaryDirectory() as folder:
        nothing = (data.train_images[:0], data.train_labels[:0])
        reporters = (Terminal(NEVER, spec["batch"]), TensorBoard(Path(folder) / "tensorboard"))
        run = RunCallback(settings, RunFolder(Path(folder)), net, nothing, Signals(), reporters)
        turns.commands["checkpoint"] = lambda: _checkpoint(run)
        chunks = chunks_of_batches(settings, data.train_labels, train, 0, 0)
        fed = backends.current().feed(chunks)
        model.fit(
            fed,
            steps_per_epoch=NEVER,
            callbacks=[run, _Ticks(turns)],
            shuffle=False,
            verbose=0,
        )
    turns.leave()


def _with_stock_normalization(layer: keras.Layer) -> keras.Layer:
    kind = type(layer)
    if isinstance(layer, BatchNormalization):
        kind = keras.layers.BatchNormalization
    return kind.from_config(layer.get_config())


def _bare_step(model: keras.Model, data: Dataset, batch: np.ndarray) -> Callable[[], object]:
    """The same computation as one compiled function of a batch that never changes.

    No stream, no metrics, no callbacks, nothing read back but the loss.
    """
    import tensorflow as tf

    index, labels = tf.constant(batch, tf.int32), tf.constant(data.train_labels[batch])
    draw = tf.constant(augmentation.draws(0, 0, 1, len(batch))[0])

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            logits = model([index, draw], training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return lambda: step().numpy()


def _checkpoint(run: RunCallback) -> dict[str, Any]:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        run.checkpoint()
        seconds.append(time.perf_counter() - start)
    files = list((run.folder.path / "checkpoints").glob("*.npz"))
    return {"seconds": seconds, "bytes": files[0].stat().st_size}
