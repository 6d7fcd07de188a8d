"""The contenders of `deployed.py`: one net, opened and called as those do who serve it.

Each takes uint8 pixels `(N, 32, 32, 3)` and gives float32 probabilities `(N, 10)` as a NumPy array.
Their packages are imported in the functions: in the process of one contender is nothing of the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from benchmarks.worker import Turns

Predict = Callable[[np.ndarray], np.ndarray]

# How far probabilities may be from ONNX Runtime's in float32 (`difference`): those of what computes in
# float32, and of what rounds more (8-bit integers, bfloat16). On the nets of `prepare`, int8 is 0.05 away at
# most, bfloat16 0.01; blue taken for red 0.16 at least, rows for columns 0.09.
EXACT, ROUNDED = 1e-3, 0.08
CHECKED_IMAGES, CHECKED_CALLS = 256, 16
FILES = {"float32": "model.onnx", "int8": "model.int8.onnx"}
WEIGHTS, REFERENCE = "weights.npz", "reference.npy"


def contend(spec: dict[str, Any], turns: Turns) -> NoReturn:
    """Run the contender that `spec` names, `deployed_*`, if its probabilities are right."""
    name = spec["contender"].removeprefix("deployed_")
    folder = Path(spec["folder"])
    files, batch = folder / str(spec["depth"]), spec["batch"]
    engine, _, variant = name.partition("_")
    predict = ENGINES[engine](files, variant, batch, turns.facts)
    reference = np.load(files / REFERENCE)
    images = np.load(folder / "images.npy", mmap_mode="r")[: len(reference)].copy()
    found = difference(predict, images, reference, batch)
    limit = ROUNDED if "int8" in name or "default" in name else EXACT
    if not found <= limit:  # so that NaN is refused too
        raise SystemExit(
            f"probabilities must be within {limit} of ONNX Runtime's float32. "
            f"Received: a difference of {found:.3g}"
        )
    turns.facts["difference"] = float(f"{found:.3g}")
    images = images[:batch].copy()
    turns.forever(lambda: predict(images))


def difference(predict: Predict, images: np.ndarray, reference: np.ndarray, batch: int) -> float:
    """Mean over the images of the largest difference of a probability from `reference`; NaN if one is NaN.

    Only the images of the first calls count: one batch of 256, or 16 of 1.
    """
    starts = range(0, len(images), batch)[:CHECKED_CALLS]
    answers = np.concatenate([predict(images[k : k + batch]) for k in starts])
    return float(np.abs(answers - reference[: len(answers)]).max(1).mean())


def _onnxruntime(files: Path, variant: str, batch: int, facts: dict[str, Any]) -> Predict:
    import onnxruntime

    facts["versions"] = {"onnxruntime": onnxruntime.__version__}
    session = onnxruntime.InferenceSession(
        files / FILES[variant], providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(["probabilities", "class_id"], {"image": images})[0]


def _openvino(files: Path, variant: str, batch: int, facts: dict[str, Any]) -> Predict:
    import openvino

    file, _, precision = variant.partition("_")
    options = {"INFERENCE_PRECISION_HINT": "f32"} if precision == "f32" else {}
    model = openvino.compile_model(files / FILES[file], "CPU", options)
    facts["versions"] = {"openvino": openvino.__version__.partition("-")[0]}
    facts["precision"] = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return lambda images: model(images)["probabilities"]


def _torch(files: Path, variant: str, batch: int, facts: dict[str, Any]) -> Predict:
    # What is compiled goes when the benchmark ends, and its time is seen in every run.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(files.parent / "inductor")
    from benchmarks import torch_nets

    facts["versions"] = {"torch": torch_nets.torch.__version__}
    with np.load(files / WEIGHTS) as weights:
        return torch_nets.deployed(dict(weights), compiled=variant == "compile")


def _litert(files: Path, variant: str, batch: int, facts: dict[str, Any]) -> Predict:
    try:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter

        facts["versions"] = {"ai_edge_litert": ai_edge_litert.__version__}
    except ImportError:
        import tensorflow

        Interpreter = tensorflow.lite.Interpreter
    # All cores, as the others take by themselves.
    interpreter = Interpreter(str(files / "model.tflite"), num_threads=os.cpu_count())
    image = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(image, (batch, 32, 32, 3))
    interpreter.allocate_tensors()
    # The outputs of a signature have their names, those of the interpreter only numbers.
    names = interpreter.get_signature_runner("serving_default").get_output_details()
    probabilities = names["probabilities"]["index"]

    def predict(images: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(image, images)
        interpreter.invoke()
        return interpreter.get_tensor(probabilities)

    return predict


def _keras(files: Path, variant: str, batch: int, facts: dict[str, Any]) -> Predict:
    import keras

    import keras_resnet  # noqa: F401  before load_model: it registers the package's layers

    return keras.models.load_model(files / "model.keras").predict_on_batch


ENGINES = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
    "litert": _litert,
    "keras": _keras,
}
