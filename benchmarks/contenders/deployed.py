"""One exported net, opened and called as those do who serve it.

Each engine takes uint8 pixels `(N, 32, 32, 3)` and gives float32 probabilities `(N, 10)`. Packages are
imported in the functions, so that a contender's process holds nothing of the others.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worker import Turns

Predict = Callable[[np.ndarray], np.ndarray]

# How far probabilities may be from ONNX Runtime's in float32 (see `difference`): in float32, and in int8 or
# bfloat16. Blue taken for red is at least 0.11 away, a mirrored image 0.03.
EXACT, ROUNDED = 1e-3, 0.025
CHECKED_CALLS = 16


def run(spec: dict[str, Any], turns: Turns) -> None:
    """Call the spec's `engine` with batches of `batch_size`, if its probabilities are right.

    `target` is the folder that `exported_net` wrote; with `rounded` the arithmetic may be int8 or bfloat16.
    """
    target, batch_size = Path(spec["target"]), spec["batch_size"]
    turns.facts["precision"] = "int8" if "int8" in spec.get("file", "") else "float32"
    predict = ENGINES[spec["engine"]](spec, target, turns.facts)
    images, reference = np.load(target / "images.npy"), np.load(target / "reference.npy")
    limit = ROUNDED if spec.get("rounded") else EXACT
    distance = difference(predict, images, reference, batch_size)
    if not distance <= limit:  # refuses NaN too
        raise SystemExit(
            f"probabilities must be within {limit} of ONNX Runtime's float32. "
            f"Received: a difference of {distance:.3g}"
        )
    turns.facts["difference"] = float(f"{distance:.3g}")
    turns.repeat(lambda: predict(images[:batch_size]))


def difference(
    predict: Predict, images: np.ndarray, reference: np.ndarray, batch_size: int
) -> float:
    """Mean over the images of the largest difference of a probability; NaN if one is NaN.

    Only the first 16 batches count.
    """
    starts = range(0, len(images), batch_size)[:CHECKED_CALLS]
    answers = np.concatenate([predict(images[k : k + batch_size]) for k in starts])
    return float(np.abs(answers - reference[: len(answers)]).max(1).mean())


def _onnxruntime(spec: dict[str, Any], target: Path, facts: dict[str, Any]) -> Predict:
    import onnxruntime

    facts["versions"] = {"onnxruntime": onnxruntime.__version__}
    session = onnxruntime.InferenceSession(
        target / "export" / spec["file"], providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(["probabilities", "class_id"], {"image": images})[0]


def _openvino(spec: dict[str, Any], target: Path, facts: dict[str, Any]) -> Predict:
    import openvino  # type: ignore[import-not-found]

    options = {} if spec.get("default") else {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.compile_model(target / "export" / spec["file"], "CPU", options)
    facts["versions"] = {"openvino": openvino.__version__.partition("-")[0]}
    hint = model.get_property("INFERENCE_PRECISION_HINT")
    facts["precision"] += f" file in {hint.get_type_name()}"
    return lambda images: model(images)["probabilities"]


def _torch(spec: dict[str, Any], target: Path, facts: dict[str, Any]) -> Predict:
    # What is compiled goes with the worker's folder, so that every run compiles.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = spec["folder"]
    import torch

    from benchmarks.contenders import torch_net

    facts["versions"] = {"torch": torch.__version__}
    with np.load(target / "weights.npz") as file:
        weights = list(file.values())
    return torch_net.classifier(weights, compiled=spec.get("compiled", False))


def _litert(spec: dict[str, Any], target: Path, facts: dict[str, Any]) -> Predict:
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter

    facts["versions"] = {"ai_edge_litert": ai_edge_litert.__version__}
    # All cores, as the others take by themselves.
    interpreter = Interpreter(str(target / "export/model.tflite"), num_threads=os.cpu_count())
    image = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(image, (spec["batch_size"], 32, 32, 3))
    interpreter.allocate_tensors()
    # The outputs of a signature have their names, those of the interpreter only numbers.
    names = interpreter.get_signature_runner("serving_default").get_output_details()
    probabilities = names["probabilities"]["index"]

    def predict(images: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(image, images)
        interpreter.invoke()
        return interpreter.get_tensor(probabilities)

    return predict


def _keras(spec: dict[str, Any], target: Path, facts: dict[str, Any]) -> Predict:
    import keras

    import keras_resnet  # makes its layers known to load_model

    facts["versions"] = {"keras": keras.__version__, "keras_resnet": keras_resnet.__version__}
    return keras.models.load_model(target / "export/model.keras").predict_on_batch


ENGINES = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
    "litert": _litert,
    "keras": _keras,
}
