"""Open a trained net by its name in the zoo or its path, in any format: the only place that does.

    net = open_net("resnet20")
    net(images)                  # uint8 (N, height, width, 3) -> probabilities, float32 (N, classes)
    net.class_names, net.image_size, net.path, net.format

Any classifier of RGB pixels 0..255 is taken: a net of this package, another Keras model that Keras's
safe mode opens, a SavedModel or an ONNX file. What is imported late is slow to import, and not needed
for every format.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet.console import printable
from keras_resnet.errors import UserError, missing
from keras_resnet.inference import zoo
from keras_resnet.inference.class_names import names_beside, parse_names
from keras_resnet.inference.probabilities import to_probabilities
from keras_resnet.runs import files

if TYPE_CHECKING:
    import keras

MAX_NET_BYTES = 1 << 30  # of a file's weights and config, unpacked: ResNet-1202 has 85 MB
Shape = Sequence[int | None]


@dataclasses.dataclass(frozen=True)
class OpenedNet:
    """A trained net, whatever its format: call it with images.

    Attributes:
        path: what it was read from.
        format: `"keras"`, `"saved_model"` or `"onnx"`.
        image_size: (height, width).
        class_names: in the order of the probabilities; `class 0`, ... where nothing names them.
        run: from uint8 `(N, height, width, 3)` to probabilities or logits `(N, classes)`.
        output_name: `probabilities` where it must return some.
    """

    path: Path
    format: str
    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    run: Callable[[np.ndarray], Any] = dataclasses.field(repr=False)
    output_name: str = "probabilities"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 `(N, classes)`, of images, uint8 `(N, height, width, 3)`."""
        return to_probabilities(self.run(images), len(images), str(self.path), self.output_name)


def open_net(model: str | os.PathLike[str] | None = None) -> OpenedNet:
    """Open what a name of the zoo, a path or None (the ResNet-20 of the zoo) means; see `Classifier.load`."""
    path = zoo.resolve(model)
    try:
        if (path / "saved_model.pb").is_file():
            return _open_saved_model(path)
        if path.suffix == ".onnx" and path.is_file():
            return _open_onnx(path)
        if path.is_dir() or (path.suffix == ".keras" and path.is_file()):
            return _open_keras(path)
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror or error})") from None
    raise UserError(f"the model must be {zoo.EXPECTED}. Received: {path}, which is another file")


def load_keras(path: str | os.PathLike[str]) -> keras.Model:
    """Read a `.keras` file, or the model.keras of a folder, in Keras's safe mode: no code of the file runs.

    Returns:
        The model, not compiled, with the dtype policies that it was saved with.

    Raises:
        UserError: in one line, if it is missing, damaged, too large, no Keras file, or has weights that
            are not finite.
    """
    file = model_file(Path(path))
    _check_sum(file)
    import keras

    from keras_resnet.nets.resnet import allow_deep_graphs  # also registers our layers with Keras

    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_NET_BYTES:
            raise UserError(
                f"{file} must have at most {MAX_NET_BYTES:,} bytes, unpacked. Received: {size:,}"
            )
        allow_deep_graphs()
        net = keras.models.load_model(file, compile=False, safe_mode=True)
    except UserError:
        raise
    except Exception as error:  # Keras, h5py and zipfile raise many kinds
        raise UserError(
            f"{file} could not be opened as a Keras file, because it is damaged or needs code that is not "
            f"here ({type(error).__name__}: {_first_line(error)}); copy or save it again"
        ) from None
    for weight in net.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise UserError(
                f"{file} holds weights that are not finite ({weight.path}): its training diverged; "
                "use another file"
            )
    return net


def model_file(path: Path) -> Path:
    """The `.keras` file that a file or a run folder means. Raises UserError where there is none."""
    path = Path(path)
    if not path.is_dir():
        if path.suffix == ".keras" and path.is_file():
            return path
        kind = "is another file" if os.path.exists(path) else "does not exist"
        raise UserError(
            f"the model must be a run folder or a .keras file. Received: {path}, which {kind}"
        )
    if (path / "model.keras").is_file():
        return path / "model.keras"
    reason = "is no run folder" if any(path.iterdir()) else "is empty"
    if (path / "results.json").exists():
        reason = "holds only the small files of a run; `keras-resnet models` lists trained nets"
    elif (path / "config.json").exists():
        reason = "is a run that has not finished: give its command of train.py again"
    elif (path / "saved_model.pb").exists():
        reason = "is a SavedModel, and a .keras file is needed here"
    elif runs := sorted(path.glob("seed-*/model.keras")):
        reason = f"is an experiment; name one of its runs, e.g. {runs[0].parent}"
    raise UserError(f"a run folder must hold model.keras. Received: {path}, which {reason}")


def _open_keras(path: Path) -> OpenedNet:
    file = model_file(path)
    net = load_keras(file)
    inputs, outputs = getattr(net, "inputs", None) or [], getattr(net, "outputs", None) or []
    shapes = [tuple(tensor.shape) for tensor in inputs], [tuple(tensor.shape) for tensor in outputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise _no_classifier(file, *shapes)

    def run(images: np.ndarray) -> Any:
        results = net.predict_on_batch(images)
        while isinstance(results, Mapping | list | tuple):  # of one output, in some structure
            results = next(iter(results.values() if isinstance(results, Mapping) else results))
        return results

    return _opened(file, "keras", run, shapes[0][0], shapes[1][0], net.layers[-1].name)


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
        raise UserError(f"{path} could not be read as a SavedModel: {_first_line(error)}") from None

    def shapes(specs: Mapping[str, Any]) -> dict[str, Shape]:
        return {name: tuple(s.shape) if s.shape.rank else () for name, s in specs.items()}

    specs = signature.structured_input_signature[1]
    inputs, outputs = shapes(specs), shapes(signature.structured_outputs)
    source, target = _ends(path, inputs, outputs)
    dtype = specs[source].dtype.as_numpy_dtype

    def run(images: np.ndarray, _keep: Any = loaded) -> Any:  # it owns the variables
        return signature(**{source: tf.constant(images.astype(dtype))})[target].numpy()

    return _opened(path, "saved_model", run, inputs[source], outputs[target], target)


def _open_onnx(path: Path) -> OpenedNet:
    if importlib.util.find_spec("onnxruntime") is None:
        raise missing("onnxruntime", "an ONNX file")
    import onnxruntime

    _check_sum(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong comes as an exception
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many kinds on damaged files
        raise UserError(
            f"{path} could not be read as an ONNX model: {_first_line(error)}"
        ) from None

    def shapes(nodes: Sequence[Any]) -> dict[str, Shape]:
        return {n.name: [s if isinstance(s, int) else None for s in n.shape] for n in nodes}

    inputs, outputs = shapes(session.get_inputs()), shapes(session.get_outputs())
    source, target = _ends(path, inputs, outputs)
    dtype = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32

    def run(images: np.ndarray) -> Any:
        return session.run([target], {source: np.ascontiguousarray(images, dtype)})[0]

    text = session.get_modelmeta().custom_metadata_map.get("names")
    names = None if text is None else parse_names(text, path)
    return _opened(path, "onnx", run, inputs[source], outputs[target], target, names)


def _ends(path: Path, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> tuple[str, str]:
    """The names of the only input, and of the output `probabilities` or the only one `(N, classes)`."""
    targets = [name for name, shape in outputs.items() if len(shape) == 2]
    targets = ["probabilities"] if "probabilities" in outputs else targets
    if len(inputs) != 1 or len(targets) != 1:
        raise _no_classifier(path, [*inputs.values()], [*outputs.values()])
    return next(iter(inputs)), targets[0]


def _opened(
    path: Path, format: str, run: Callable[[np.ndarray], Any], source: Shape, target: Shape,
    output_name: str, names: tuple[str, ...] | None = None,
) -> OpenedNet:  # fmt: skip
    """Check the shapes of input and output, and find the names of the classes."""
    batch, height, width, channels = source if len(source) == 4 else (0, None, None, None)
    classes = target[-1] if len(target) == 2 else None
    if batch is not None or not height or not width or channels != 3 or (classes or 0) < 2:
        raise _no_classifier(path, [source], [target])
    assert classes is not None
    names = names or names_beside(path, classes) or tuple(f"class {k}" for k in range(classes))
    if len(names) != classes:
        raise UserError(f"{path} has {classes} classes but metadata with {len(names)} names")
    return OpenedNet(path, format, (height, width), names, run, output_name)


def _no_classifier(path: Path, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> UserError:
    def listed(shapes: Sequence[Shape]) -> str:
        return " and ".join(str(tuple(shape)) for shape in shapes)[:100] or "none"

    return UserError(
        f"{path} must take RGB images (N, height, width, 3), N not fixed, and return probabilities or logits "
        f"(N, classes). Received: inputs {listed(inputs)}; outputs {listed(outputs)}"
    )


def _check_sum(path: Path) -> None:
    """Compare a file of an export with its SHA-256 in the export.json beside it, if that has one."""
    try:
        data = files.read_bytes(path.parent / "export.json")
        expected = json.loads(data or b"{}")["sha256"][path.name]
    except (UserError, ValueError, KeyError, TypeError):
        return
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise UserError(
                f"{path} is damaged: its SHA-256 is not the one in export.json beside it; export it or "
                "copy it again"
            )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0])[:200] if lines else type(error).__name__
