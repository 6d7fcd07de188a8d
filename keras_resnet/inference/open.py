"""Open a trained net in any of its formats: from uint8 images to probabilities.

What is imported late is slow to import, and not needed for every format.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_resnet.console import printable
from keras_resnet.errors import UserError
from keras_resnet.runs import files
from keras_resnet.runs.folder import RunFolder

_MAX_ONNX_BYTES = 2**30
_MAX_TEXT_BYTES = 2**20  # of class names
Run = Callable[[np.ndarray], np.ndarray]
EXPECTED = (
    "a .keras file, a run folder (with model.keras), a SavedModel folder (with saved_model.pb) "
    "or an .onnx file"
)


class OpenedNet(NamedTuple):
    """A net as it is used, whatever its format."""

    path: Path
    format: str
    run: Run  # from uint8 (n, height, width, 3) to probabilities (n, classes)
    shape: tuple[int | None, ...]  # of the input; None for any
    classes: int | None
    names: tuple[str, ...] | None = None  # of the classes


def open_net(path: Path) -> OpenedNet:
    """Open a `.keras` file, a run folder, a SavedModel folder or an `.onnx` file.

    Raises:
        UserError: if it is missing, damaged or not a net of this package.
    """
    try:
        model = _opened(path)
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror or error})") from None
    batch, *size, channels = model.shape if len(model.shape) == 4 else (0, None, None)
    classes = model.classes
    if batch is not None or None in size or channels != 3 or not classes:
        raise UserError(
            f"{path} must take RGB images (N, height, width, 3) and return probabilities "
            f"(N, classes). Received: input {model.shape}, {classes or 'unknown'} classes"
        )
    names = model.names or names_beside(model.path, classes)
    names = names or tuple(f"class {k}" for k in range(classes))
    if len(names) != classes:
        raise UserError(f"{path} has {classes} classes but metadata with {len(names)} names")
    return model._replace(names=names)


def _opened(path: Path) -> OpenedNet:
    if (path / "saved_model.pb").is_file():
        return _open_saved_model(path)
    if path.suffix == ".onnx" and path.is_file():
        return _open_onnx(path)
    if path.is_dir() or (path.suffix == ".keras" and path.is_file()):
        return _open_keras(path)
    found = "which is another file" if path.exists() else "which does not exist"
    raise UserError(f"the model must be {EXPECTED}. Received: {path}, {found}")


def _check_sum(path: Path) -> None:
    """Compare a file of an export with the SHA-256 that export.json beside it has for it, if it has one."""
    try:
        data = files.read_bytes(path.parent / "export.json", _MAX_TEXT_BYTES)
        expected = json.loads(data or b"{}")["sha256"][path.name]
    except (UserError, ValueError, KeyError, TypeError, RecursionError):
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise UserError(
            f"{path} is damaged: its SHA-256 is not the one in export.json beside it; export it or copy "
            "it again"
        )


def _open_keras(path: Path) -> OpenedNet:
    from keras_resnet.inference.keras_file import load_keras, model_file

    path = model_file(path)  # of a folder its model.keras
    _check_sum(path)
    net = load_keras(path)
    return OpenedNet(path, "keras", net.predict_on_batch, net.input_shape, net.output_shape[-1])


def _open_saved_model(path: Path) -> OpenedNet:
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"a SavedModel needs TensorFlow, which is not installed here. Received: {path}; "
            "pip install tensorflow, or open the .keras or .onnx file"
        )
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
        signature = loaded.signatures["serving_default"]
    except Exception as error:  # TensorFlow raises many kinds on damaged files
        raise UserError(f"{path} could not be read as a SavedModel: {_reason(error)}") from None
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    _check_ours(path, {name: spec.dtype.name for name, spec in inputs.items()}, outputs)

    def run(images: np.ndarray, _keep: Any = loaded) -> np.ndarray:  # it owns the variables
        return signature(image=tf.constant(images))["probabilities"].numpy()

    shape, classes = inputs["image"].shape, outputs["probabilities"].shape[-1]
    return OpenedNet(path, "saved_model", run, tuple(shape) if shape.rank else (), classes)


def _open_onnx(path: Path) -> OpenedNet:
    import onnxruntime

    if path.stat().st_size > _MAX_ONNX_BYTES:
        raise UserError(f"{path} is larger than the {_MAX_ONNX_BYTES:,} bytes that are read")
    _check_sum(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong comes as an exception
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many kinds on damaged files
        raise UserError(f"{path} could not be read as an ONNX model: {_reason(error)}") from None
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    _check_ours(path, {name: node.type[7:-1] for name, node in inputs.items()}, outputs)

    def run(images: np.ndarray) -> np.ndarray:
        return session.run(["probabilities"], {"image": images})[0]

    def sizes(node: Any) -> list[int | None]:
        return [size if isinstance(size, int) else None for size in node.shape]

    text = session.get_modelmeta().custom_metadata_map.get("names")
    names = None if text is None else _parse_names(text, path)
    classes = (sizes(outputs["probabilities"]) or [None])[-1]
    return OpenedNet(path, "onnx", run, tuple(sizes(inputs["image"])), classes, names)


def _check_ours(path: Path, inputs: Mapping[str, str], outputs: Iterable[str]) -> None:
    if inputs != {"image": "uint8"} or "probabilities" not in outputs:
        found = ", ".join(f"{name} ({dtype})" for name, dtype in inputs.items())
        raise UserError(
            f"{path} is not a model of this package: it must take 'image' (uint8) and return "
            f"'probabilities'. Received: inputs {found}; outputs {', '.join(outputs)}"
        )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0])[:200] if lines else type(error).__name__


def _parse_names(text: str, path: Path) -> tuple[str, ...]:
    """Names from `{0: 'airplane', 1: ...}`, the form that Ultralytics began; JSON fits it too."""
    with contextlib.suppress(SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        if len(text) <= _MAX_TEXT_BYTES:
            found = ast.literal_eval(text.strip())
            found = found if isinstance(found, dict) else dict(enumerate(found))
            by_index = {int(k): v for k, v in found.items()}
            if by_index and sorted(by_index) == list(range(len(by_index))):
                return tuple(printable(by_index[k]) for k in range(len(by_index)))
    raise UserError(f"{path}: metadata 'names' must be {{0: name, 1: name, ...}}")


def names_beside(path: Path, classes: int) -> tuple[str, ...] | None:
    """Names from labels.txt (one per line) or a run's config.json in the model's folder."""
    for file in (path.parent / "labels.txt", path.parent / "config.json"):
        try:
            if file.suffix == ".txt":
                data = files.read_bytes(file, _MAX_TEXT_BYTES)
                names = None if data is None else data.decode().splitlines()
            else:
                config = RunFolder(path.parent).read_config()
                names = None if config is None else config.get("class_names")
        except (UserError, ValueError):
            continue  # no such file of ours
        if not names:
            continue
        if len(names) != classes:
            raise UserError(
                f"{file} must name the {classes} classes of {path.name}: mend or move it"
            )
        return tuple(map(printable, names))
    return None
