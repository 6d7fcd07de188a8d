"""The contenders that need TensorFlow: exported files, the matmul, and what others read (`prepare`)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from benchmarks import deployed_nets, measure, training_nets
from benchmarks.worker import Turns
from keras_resnet.data import datasets
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError
from keras_resnet.export import choices, formats, litert, quantize
from keras_resnet.export.signature import serving_model
from keras_resnet.runs import provenance
from keras_resnet.runs.config import TrainConfig
from keras_resnet.training import cpu, devices
from keras_resnet.training.model import build_net

MATMUL = 4096  # side of the square matrices
STATISTICS_BATCHES = 10  # of 128 images


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
    raise AssertionError(kind)


def _matmul(dtype: str, turns: Turns) -> NoReturn:
    """The machine's own peak: what `tf.matmul` makes of two large square matrices."""
    a, b = (tf.cast(tf.random.normal((MATMUL, MATMUL), seed=k), dtype) for k in (1, 2))
    product = tf.function(lambda: tf.reduce_sum(tf.cast(tf.matmul(a, b)[:1], tf.float32)))
    turns.facts["flops"] = 2 * MATMUL**3
    turns.forever(lambda: product().numpy())


# --- inference and files ---


def prepare(spec: dict[str, Any]) -> dict[str, Any]:
    """Write the training images of a data set, and for each of `depths` the exported files.

    The nets have their initial weights: speed does not depend on the values. With `deployed` in `spec`
    there is also what the contenders of `deployed_nets` read.
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
        kinds = [choices.SAVED_MODEL, choices.ONNX]
        if spec.get("deployed"):
            _spread_outputs(net, data.train_images)
            kinds = [choices.ONNX, *([choices.LITERT] if _has_litert() else [])]
        _export(net, settings, data, target, kinds)
        if spec.get("deployed"):
            _write_deployed(net, data, target)
        quantize.quantize(
            target / "model.onnx",
            target / "model.int8.onnx",
            data.train_images[: quantize.CALIBRATION_IMAGES],
        )
    return {
        "versions": {**provenance.versions(), **_versions("onnx", "onnxruntime")},
        "git_commit": provenance.git_commit(),
        "cpu": cpu.cpu_name(),
        "bfloat16_flags": sorted(cpu.cpu_flags() & set(cpu.NATIVE["mixed_bfloat16"])),
        "onednn": devices.onednn(),
        "dataset": data.name,
        "litert": _has_litert(),
    }


def _has_litert() -> bool:
    """Whether LiteRT files can be written and run here."""
    try:
        litert.check_litert()
    except UserError:
        return False
    return True


def _spread_outputs(net: keras.Model, images: np.ndarray) -> None:
    """Make the outputs of a net with initial weights differ between images, as a trained one's do.

    As it is built, a deep one gives all images the same class with a probability of 1, and a contender
    that computes something else would not be noticed. So the batch normalizations get the statistics
    of images, and the head's logits a mean of 0 and a standard deviation of 2.
    """
    for k in range(STATISTICS_BATCHES):
        net(images[k * 128 : (k + 1) * 128].astype(np.float32), training=True)
    head = net.get_layer("head_dense")
    features = keras.Model(net.input, head.input).predict_on_batch(images[:256])
    kernel, _ = head.get_weights()
    kernel -= kernel.mean(1, keepdims=True)  # what all logits share, the softmax takes away
    kernel *= 2 / (features @ kernel).std(0)
    head.set_weights([kernel, -(features @ kernel).mean(0)])


def _write_deployed(net: keras.Model, data: Dataset, folder: Path) -> None:
    """`model.keras`, the weights by their paths for PyTorch, and ONNX Runtime's answers."""
    net.save(folder / "model.keras")
    weights = {weight.path: np.asarray(weight) for weight in net.weights}
    constants = {"mean": data.mean, "std": data.std}
    np.savez(
        folder / deployed_nets.WEIGHTS,
        **weights,
        **{name: np.float32(value) for name, value in constants.items()},
    )
    run = formats.runner(choices.ONNX, folder / formats.FILES[choices.ONNX])
    probabilities, _ = run(data.train_images[: deployed_nets.CHECKED_IMAGES])
    np.save(folder / deployed_nets.REFERENCE, probabilities)


def export(spec: dict[str, Any]) -> dict[str, Any]:
    """Build the float32 net of `depth` and export it to a temporary folder: seconds and memory."""
    settings = TrainConfig(depth=spec["depth"])
    data = training_nets.load(Path(spec["folder"]))
    start = time.perf_counter()
    net = build_net(settings, data, 0, "float32")
    seconds = {"build": round(time.perf_counter() - start, 1)}
    with tempfile.TemporaryDirectory() as folder:
        kinds = [choices.SAVED_MODEL, choices.ONNX]
        seconds |= _export(net, settings, data, Path(folder), kinds)
        files = [f for f in Path(folder).rglob("*") if f.is_file()]
        size = {"onnx": sum(f.stat().st_size for f in files if f.suffix == ".onnx")}
        size["saved_model"] = sum(f.stat().st_size for f in files) - size["onnx"]
    return {"seconds": seconds, "bytes": size, "peak_memory_mib": measure.memory_peak()}


def _export(
    net: keras.Model, settings: TrainConfig, data: Dataset, folder: Path, kinds: Sequence[str]
) -> dict[str, float]:
    """The formats `kinds`, without the verification of `export.py`; the seconds of each."""
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
    for kind in kinds:
        formats.write(kind, serving, folder / formats.FILES[kind], choices.OPSET, facts)
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
        net = build_net(settings, training_nets.load(folder), 0, "float32")
        turns.forever(lambda: net.predict_on_batch(images))
    run = formats.runner(kind, files / formats.FILES[kind])
    turns.forever(lambda: run(images))


def _versions(*packages: str) -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in packages}
