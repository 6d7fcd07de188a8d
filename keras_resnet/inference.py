"""Use a trained net, whatever its format: `.keras`, SavedModel and ONNX behave the same.

    classifier = Classifier.load("experiments/resnet20/seed-0/export/model.onnx")
    probabilities = classifier.predict(["cat.png", "dog.jpg"])      # float32 (2, 10)
    classifier.class_names[probabilities[0].argmax()]               # "cat"

What is imported late is slow to import, and not needed for every format.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from keras_resnet import pretrained
from keras_resnet.cli import UserError, printable
from keras_resnet.images import checked, read_image

CHUNK = 256  # images decoded and run at a time: bounds the memory, fast on CPU and GPU
_MAX_ONNX_BYTES = 2**30
_MAX_TEXT_BYTES = 2**20  # of class names

Run = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A net of this package, loaded by `Classifier.load`.

    Attributes:
        path: what it was loaded from.
        format: `"keras"`, `"saved_model"` or `"onnx"`.
        class_names: in the order of the probabilities; `class 0`, ... where the model has none.
        image_size: (height, width) that the net takes.
    """

    path: Path
    format: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    _run: Run = dataclasses.field(repr=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str] = pretrained.FOLDER) -> Classifier:
        """Open a `.keras` file, a run folder, a SavedModel folder or an `.onnx` file.

        Without a path: the trained ResNet-20 that comes with the package.

        The names of the classes are ONNX metadata (`names`), else those of `labels.txt` or a run's
        `config.json` beside the model. ONNX runs on the CPU. A SavedModel is a TensorFlow program:
        open only those you trust.

        Raises:
            UserError: if it is missing, damaged or not a net of this package.
        """
        path = Path(path)
        if (path / "saved_model.pb").is_file():
            model = _open_saved_model(path)
        elif path.suffix == ".onnx" and path.is_file():
            model = _open_onnx(path)
        elif path.is_dir() or (path.suffix == ".keras" and path.is_file()):
            model = _open_keras(path)
        else:
            found = "which is another file" if path.exists() else "which does not exist"
            raise UserError(f"the model must be {_EXPECTED}. Received: {path}, {found}")
        batch, *size, channels = model.shape if len(model.shape) == 4 else (0, None, None)
        classes = model.classes
        if batch is not None or None in size or channels != 3 or not classes:
            raise UserError(
                f"{path} must take RGB images (N, height, width, 3) and return probabilities "
                f"(N, classes). Received: input {model.shape}, {classes or 'unknown'} classes"
            )
        names = model.names or _names_beside(model.path, classes)
        names = names or tuple(f"class {k}" for k in range(classes))
        if len(names) != classes:
            raise UserError(f"{path} has {classes} classes but metadata with {len(names)} names")
        return cls(model.path, model.format, names, (size[0], size[1]), model.run)

    def predict(self, images: Any) -> np.ndarray:
        """Class probabilities, float32 `(N, classes)`, of N images.

        Args:
            images: a uint8 array `(height, width, 3)` or `(N, height, width, 3)` of RGB pixels
                0..255, a file path, a PIL image, or a list (any iterable) of single ones of these.
                `read_image` says how files and images of other sizes and modes are converted.

        `CHUNK` images at a time are decoded and run: an iterable of any length fits in memory.

        Raises:
            ValueError: for an array of another shape or dtype, or an unfit PIL image.
            UserError: for a file that is missing or no readable image; the message names it.
        """
        results = [self._probabilities(chunk) for chunk in self._chunks(images)]
        return np.concatenate(results or [np.empty((0, len(self.class_names)), np.float32)])

    def _probabilities(self, chunk: np.ndarray) -> np.ndarray:
        probabilities = np.asarray(self._run(chunk), np.float32)
        if not np.isfinite(probabilities).all():
            raise UserError(f"{self.path} gives probabilities that are not finite: it is damaged")
        return probabilities

    def _chunks(self, images: Any) -> Iterator[np.ndarray]:
        if isinstance(images, str | os.PathLike | PIL.Image.Image):
            images = [images]
        if hasattr(images, "__array__"):
            array = checked(np.asarray(images), (3, 4))
            images = array if array.ndim == 4 else array[None]
            if images.shape[1:3] == self.image_size:
                for start in range(0, len(images), CHUNK):
                    yield np.ascontiguousarray(images[start : start + CHUNK])
                return
        iterator = iter(images if isinstance(images, Iterable) else [images])
        while part := [
            read_image(image, self.image_size) for image in itertools.islice(iterator, CHUNK)
        ]:
            yield np.stack(part)


_EXPECTED = (
    "a .keras file, a run folder (with model.keras), a SavedModel folder (with saved_model.pb) "
    "or an .onnx file"
)


# --- models ---------------------------------------------------------------------------------------


class _Model(NamedTuple):
    path: Path
    format: str
    run: Run  # from uint8 (n, height, width, 3) to probabilities (n, classes)
    shape: tuple[int | None, ...]  # of the input; None for any
    classes: int | None
    names: tuple[str, ...] | None = None


def _open_keras(path: Path) -> _Model:
    from keras_resnet.loading import load_keras, model_file

    path = model_file(path)  # of a run folder its model.keras
    net = load_keras(path)
    return _Model(path, "keras", net.predict_on_batch, net.input_shape, net.output_shape[-1])


def _open_saved_model(path: Path) -> _Model:
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
    return _Model(path, "saved_model", run, tuple(shape) if shape.rank else (), classes)


def _open_onnx(path: Path) -> _Model:
    import onnxruntime

    if path.stat().st_size > _MAX_ONNX_BYTES:
        raise UserError(f"{path} is larger than the {_MAX_ONNX_BYTES:,} bytes that are read")
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
    return _Model(path, "onnx", run, tuple(sizes(inputs["image"])), classes, names)


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


# --- class names ----------------------------------------------------------------------------------


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


def _names_beside(path: Path, classes: int) -> tuple[str, ...] | None:
    """Names from labels.txt (one a line) or a run's config.json in the model's folder."""
    for file in (path.parent / "labels.txt", path.parent / "config.json"):
        if not file.is_file() or file.stat().st_size > _MAX_TEXT_BYTES:
            continue
        try:
            text = file.read_text("utf-8")
            names = text.splitlines() if file.suffix == ".txt" else json.loads(text)["class_names"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # no such file of ours
        if not isinstance(names, list) or len(names) != classes:
            raise UserError(
                f"{file} must name the {classes} classes of {path.name}: mend or move it"
            )
        return tuple(map(printable, names))
    return None


def add_model_flag(parser: argparse.ArgumentParser) -> None:
    """The `--model` of the commands."""
    parser.add_argument(
        "--model",
        default=pretrained.FOLDER,
        metavar="PATH",
        help=f"{_EXPECTED} (default: the trained ResNet-20 that comes with the package)",
    )
