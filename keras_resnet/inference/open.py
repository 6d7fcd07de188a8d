"""Open a trained net by its name or its path, in any format, with only the imports that it needs."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_resnet.console import printable
from keras_resnet.errors import UserError, missing
from keras_resnet.inference import zoo
from keras_resnet.runs import files
from keras_resnet.runs.folder import RunConfig, RunFolder

if TYPE_CHECKING:
    import keras

MAX_NET_BYTES = 1 << 30  # of a file's weights and config, unpacked: ResNet-1202 has 85 MB

Shapes = Mapping[str, Sequence[Any]]  # by name, with None for a side that is not fixed


class OpenedNet(NamedTuple):
    """A net as its file has it, with any inputs and outputs."""

    path: Path
    format: str
    inputs: Shapes
    outputs: Shapes
    run: Callable[[np.ndarray], Mapping[str, Any]]  # from the only input to all outputs by name
    names: str | None = None  # the metadata `names` of an ONNX file


def open_net(model: str | os.PathLike[str] | None = None) -> OpenedNet:
    """Open the net of a name or a path; None is the default net. Raises UserError."""
    path = zoo.resolve(model)
    try:
        if (path / "saved_model.pb").is_file():
            return _open_saved_model(path)
        if path.suffix == ".onnx" and path.is_file():
            return _open_onnx(path)
        return _open_keras(model_file(path))
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror or error})") from None


def load_keras(path: str | os.PathLike[str]) -> keras.Model:
    """Read a `.keras` file, or the model.keras of a folder, in Keras's safe mode: no code of the file runs.

    The model is not compiled. Raises UserError if it is missing, damaged, too large or not finite.
    """
    file = model_file(Path(path))
    _compare_sha256(file)
    import keras

    from keras_resnet.nets.resnet import allow_deep_graphs  # also registers our layers with Keras

    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_NET_BYTES:
            raise ValueError(f"it must have at most {MAX_NET_BYTES:,} bytes, not {size:,}")
        allow_deep_graphs()
        with warnings.catch_warnings(action="ignore"):  # what is wrong comes as an exception
            net = keras.models.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # Keras, h5py and zipfile raise many kinds
        raise UserError(
            f"{file} could not be opened as a Keras file, because it is damaged or needs code that is not "
            f"here ({type(error).__name__}: {one_line(error)}); copy or save it "
            "again (in a run folder: delete it, and give the run's command again)"
        ) from None
    for weight, values in zip(net.weights, net.get_weights(), strict=True):
        if not np.isfinite(values).all():
            raise UserError(
                f"{file} holds weights that are not finite ({weight.path}): its training diverged; "
                "use another file"
            )
    return net


def model_file(path: Path) -> Path:
    """The `.keras` file that a file or a run folder means. Raises UserError where there is none."""
    file = path / "model.keras" if path.is_dir() else path
    if file.suffix == ".keras" and file.is_file():
        return file
    if not path.is_dir():
        kind = "is another file" if os.path.exists(path) else "does not exist"
        kind = "only predict and evaluate can use" if file.suffix == ".onnx" else kind
        raise UserError(f"the model must be {zoo.EXPECTED}. Received: {path}, which {kind}")
    contents = {
        "results.json": "has only the small files of a run; `keras-resnet models` lists trained nets",
        "config.json": "is a run that has not finished: give its command of train.py again",
        "saved_model.pb": "is a SavedModel, and a .keras file is needed here",
        "seed-*/model.keras": "is an experiment: name one of its runs, seed-0 for example",
        "*": "holds none",
    }
    reason = next((text for name, text in contents.items() if any(path.glob(name))), "is empty")
    if str(path) in {entry.name for entry in zoo.entries()}:
        reason += ", and hides the trained net of that name: rename it"
    raise UserError(f"a run folder must hold model.keras. Received: {path}, which {reason}")


def names_beside(path: Path, classes: int) -> tuple[str, ...]:
    """Class names from labels.txt (one per line) or a run's config.json beside a model, or ()."""
    data = files.read_bytes(path.parent / "labels.txt") or b""
    try:
        names = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path.parent / 'labels.txt'} must be text in UTF-8: save it so") from None
    if not names and (config := run_config(path.parent)):
        names = config.get("class_names", [])
    if names and len(names) != classes:
        raise UserError(
            f"labels.txt or config.json in {path.parent} must name the {classes} classes of {path.name}. "
            f"Received: {len(names)} names; correct or move it"
        )
    return tuple(map(printable, names))


def run_config(folder: Path) -> RunConfig | None:
    """config.json of a run; None where there is none, or one of another program. Raises UserError."""
    data = files.read_bytes(folder / "config.json") or b"{}"
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        if "settings" not in json.loads(data):
            return None
    return RunFolder(folder).read_config()


def keras_shapes(net: keras.Model) -> tuple[Shapes, Shapes]:
    """Shapes of a Keras model's inputs and outputs, by name; none where it is not built of layers.

    Raises UserError where its only output is a sigmoid, whose numbers are neither probabilities nor logits.
    """
    import keras

    names = getattr(net, "output_names", None) or [net.layers[-1].name]
    inputs, outputs = getattr(net, "inputs", None) or [], getattr(net, "outputs", None) or []
    last = [x._keras_history.operation for x in outputs]
    if [getattr(layer, "activation", None) for layer in last] == [keras.activations.sigmoid]:
        raise UserError(
            f"a net must return probabilities whose sum is 1, or logits. Received: {net.name}, which ends "
            "in a sigmoid"
        )
    return (
        {x.name: tuple(x.shape) for x in inputs},
        {name: tuple(x.shape) for name, x in zip(names, outputs, strict=False)},
    )


def _open_keras(path: Path) -> OpenedNet:
    import keras

    net = load_keras(path)
    inputs, outputs = keras_shapes(net)

    def run(images: np.ndarray) -> dict[str, Any]:
        return dict(zip(outputs, keras.tree.flatten(net.predict_on_batch(images)), strict=True))

    return OpenedNet(path, "keras", inputs, outputs, run)


def _open_saved_model(path: Path) -> OpenedNet:
    if importlib.util.find_spec("tensorflow") is None:
        raise missing("tensorflow", f"{path}, a SavedModel,")
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
        signature = loaded.signatures.get("serving_default")
        if signature is None:
            raise ValueError("it has no signature serving_default")
    except Exception as error:  # TensorFlow raises many kinds on damaged files
        raise UserError(f"{path} could not be read as a SavedModel: {one_line(error)}") from None
    specs = signature.structured_input_signature[1]
    inputs, outputs = (
        {name: tuple(s.shape) if s.shape.rank else () for name, s in ends.items()}
        for ends in (specs, signature.structured_outputs)
    )

    def run(images: np.ndarray, _keep: Any = loaded) -> dict[str, Any]:
        ((name, spec),) = specs.items()
        image = tf.constant(images.astype(spec.dtype.as_numpy_dtype, casting="safe"))
        values = signature(**{name: image})  # `loaded` owns the variables
        return {name: value.numpy() for name, value in values.items()}

    return OpenedNet(path, "saved_model", inputs, outputs, run)


def _open_onnx(path: Path) -> OpenedNet:
    if importlib.util.find_spec("onnxruntime") is None:
        raise missing("onnxruntime", "an ONNX file")
    import onnxruntime

    _compare_sha256(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong comes as an exception
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many kinds on damaged files
        raise UserError(f"{path} could not be read as an ONNX model: {one_line(error)}") from None
    inputs, outputs = (
        {
            node.name: [side if isinstance(side, int) else None for side in node.shape]
            for node in ends
        }
        for ends in (session.get_inputs(), session.get_outputs())
    )

    def run(images: np.ndarray) -> dict[str, Any]:
        (source,) = session.get_inputs()
        kind = source.type.removeprefix("tensor(").removesuffix(")")
        kind = {"float": "float32", "double": "float64"}.get(kind, kind)
        images = np.ascontiguousarray(images.astype(kind, casting="safe"))
        return dict(zip(outputs, session.run(list(outputs), {source.name: images}), strict=True))

    names = session.get_modelmeta().custom_metadata_map.get("names")
    return OpenedNet(path, "onnx", inputs, outputs, run, names)


def exported_sha256(folder: Path) -> dict[str, str] | None:
    """The SHA-256 of each file of an export, from its export.json; None for any other folder."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return {**json.loads(files.read_bytes(folder / "export.json") or b"{}")["sha256"]}
    return None


def was_changed(path: Path) -> bool:
    """Whether a file of an export has another SHA-256 than export.json beside it says."""
    expected = (exported_sha256(path.parent) or {}).get(path.name)
    data = files.read_bytes(path) if expected else None
    return data is not None and hashlib.sha256(data).hexdigest() != expected


def _compare_sha256(path: Path) -> None:
    if was_changed(path):
        raise UserError(
            f"{path} is damaged: its SHA-256 is not that of export.json beside it; copy or export it again"
        )


def one_line(error: Exception) -> str:
    """A library's message on one line; its names in backticks are no settings of ours."""
    text = " ".join(str(error).replace("`", "'").split())
    return printable(text)[:300] or type(error).__name__
