"""The Keras contenders: our training path, its parts, stock Keras, the exported files, the matmul.

Also what only they can know: multiply-adds of a net, and the files that others read (`prepare`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from benchmarks import measure
from benchmarks.worker import Turns
from keras_resnet.data import datasets, stream
from keras_resnet.data.dataset import Dataset
from keras_resnet.export import formats, onnx_file, quantize
from keras_resnet.export.serving import serving_model
from keras_resnet.nets.layers import BatchNormalization
from keras_resnet.runs import provenance
from keras_resnet.runs.folder import RunFolder
from keras_resnet.training import devices
from keras_resnet.training.callback import RunCallback
from keras_resnet.training.config import TrainConfig
from keras_resnet.training.model import batches, build_net, training_model
from keras_resnet.training.reporters import TensorBoard, Terminal
from keras_resnet.training.signals import Signals

MATMUL = 4096  # side of the square matrices
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


def contend(spec: dict[str, Any], turns: Turns) -> NoReturn:
    """Run the contender, or do the one-time work, that `spec` names."""
    kind = spec["contender"]
    if kind.startswith("matmul_"):
        _matmul(kind.removeprefix("matmul_"), turns)
    if kind == "prepare":
        turns.once(lambda: prepare(spec))
    if kind == "export":
        turns.once(lambda: export(spec))
    if kind.startswith("infer_"):
        _infer(spec, turns)
    _train(spec, turns)


def _matmul(dtype: str, turns: Turns) -> NoReturn:
    """The machine's own peak: what `tf.matmul` makes of two large square matrices."""
    a, b = (tf.cast(tf.random.normal((MATMUL, MATMUL), seed=k), dtype) for k in (1, 2))
    product = tf.function(lambda: tf.reduce_sum(tf.cast(tf.matmul(a, b)[:1], tf.float32)))
    turns.facts["flops"] = 2 * MATMUL**3
    turns.forever(lambda: product().numpy())


# --- training ---


class _Ticks(keras.callbacks.Callback):
    def __init__(self, turns: Turns):
        super().__init__()
        self.turns = turns

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.turns.tick()


def _train(spec: dict[str, Any], turns: Turns) -> NoReturn:
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
    data = _load(Path(spec["folder"]))
    start = time.perf_counter()
    net = build_net(settings, data, 0, precision)
    if kind.startswith("stock"):
        net = keras.models.clone_model(net, clone_function=_with_stock_normalization)
    model = training_model(settings, data, net, 0)
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
        fed = batches(settings, data.train_labels, train, 0, 0)
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
    index, labels = tf.constant(batch, tf.int32), tf.constant(data.train_labels[batch])

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(index, training=True)
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


# --- inference and files ---


def _load(folder: Path) -> Dataset:
    """The data set that `prepare` left in `folder`."""
    name, *class_names = (folder / "names.txt").read_text().split("\n")
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    return Dataset(name, tuple(class_names), images, labels, images[:1], labels[:1])


def prepare(spec: dict[str, Any]) -> dict[str, Any]:
    """Write the training images of a data set, and for each of `depths` the exported files.

    The nets have their initial weights: speed does not depend on the values.
    """
    folder = Path(spec["folder"])
    data = datasets.load(spec["dataset"], spec["data_dir"])
    np.save(folder / "images.npy", data.train_images)
    np.save(folder / "labels.npy", data.train_labels)
    (folder / "names.txt").write_text("\n".join([data.name, *data.class_names]))
    for depth in spec["depths"]:
        settings = TrainConfig(depth=depth)
        net = build_net(settings, data, 0, "float32")
        target = folder / str(depth)
        target.mkdir()
        _export(net, settings, data, target)
        quantize.quantize(
            target / "model.onnx",
            target / "model.int8.onnx",
            data.train_images[: quantize.CALIBRATION_IMAGES],
        )
    return {
        "versions": {**provenance.versions(), **_versions("onnx", "onnxruntime")},
        "git_commit": provenance.git_commit(),
        "cpu": devices.cpu_name(),
        "bfloat16_flags": sorted(devices.cpu_flags() & set(devices.NATIVE["mixed_bfloat16"])),
        "onednn": devices.onednn(),
        "dataset": data.name,
    }


def export(spec: dict[str, Any]) -> dict[str, Any]:
    """Build the float32 net of `depth` and export it to a temporary folder: seconds and memory."""
    settings = TrainConfig(depth=spec["depth"])
    data = _load(Path(spec["folder"]))
    start = time.perf_counter()
    net = build_net(settings, data, 0, "float32")
    seconds = {"build": round(time.perf_counter() - start, 1)}
    with tempfile.TemporaryDirectory() as folder:
        seconds |= _export(net, settings, data, Path(folder))
        files = [f for f in Path(folder).rglob("*") if f.is_file()]
        size = {"onnx": sum(f.stat().st_size for f in files if f.suffix == ".onnx")}
        size["saved_model"] = sum(f.stat().st_size for f in files) - size["onnx"]
    return {"seconds": seconds, "bytes": size, "peak_memory_mib": measure.memory_peak()}


def _export(
    net: keras.Model, settings: TrainConfig, data: Dataset, folder: Path
) -> dict[str, float]:
    """SavedModel and ONNX, without the verification of `export.py`; the seconds of each."""
    start = time.perf_counter()
    serving = serving_model(net)
    facts = {
        "name": net.name,
        "description": f"{net.name}, not trained, for benchmarks",
        "versions": provenance.versions(),
        "input_shape": net.input_shape[1:],
        "class_names": data.class_names,
        "model": settings.model,
        "depth": settings.depth,
        "shortcut": settings.shortcut,
        "dataset": data.name,
        "test_error": {},
        "git_commit": None,
    }
    seconds = {}
    for kind in (formats.SAVED_MODEL, formats.ONNX):
        formats.write(kind, serving, folder / formats.FILES[kind], onnx_file.OPSET, facts)
        seconds[kind] = round(time.perf_counter() - start, 1)
        start = time.perf_counter()
    return seconds


def _infer(spec: dict[str, Any], turns: Turns) -> NoReturn:
    """`infer_keras`, `infer_saved_model`: uint8 pixels in, probabilities out as a NumPy array."""
    folder, kind = Path(spec["folder"]), spec["contender"].removeprefix("infer_")
    images = np.load(folder / "images.npy", mmap_mode="r")[: spec["batch"]].copy()
    files = folder / str(spec["depth"])
    if kind == "keras":
        settings = TrainConfig(depth=spec["depth"])
        net = build_net(settings, _load(folder), 0, "float32")
        turns.forever(lambda: net.predict_on_batch(images))
    run = formats.runner(kind, files / formats.FILES[kind])
    turns.forever(lambda: run(images))


def _versions(*packages: str) -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in packages}
