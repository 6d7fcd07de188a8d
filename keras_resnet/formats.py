"""One net in each format that can be exported: how it is written, and how it is run again.

All formats have the interface of `serving_model`: `image` uint8 `(N, H, W, C)` in; `probabilities`
float32 `(N, classes)` and `class_id` int64 `(N,)` out.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf

from keras_resnet.cli import UserError
from keras_resnet.datasets import Dataset

SAVED_MODEL, ONNX, LITERT = "saved_model", "onnx", "litert"
FILES = {SAVED_MODEL: "saved_model", ONNX: "model.onnx", LITERT: "model.tflite"}
OPSETS = range(13, 19)  # quantization a channel begins with 13, tf2onnx 1.17 ends at 18
BATCH_AXIS = "batch"

# uint8 images -> (probabilities, class ids)
Runner = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class _ClassId(keras.layers.Layer):
    """Index of the largest probability.

    `keras.ops.argmax` adds bit operations for -0.0, which neither tf2onnx nor LiteRT knows.
    """

    def call(self, probabilities: Any) -> Any:
        return tf.argmax(probabilities, axis=-1, output_type=tf.int64)


def serving_model(net: keras.Model) -> keras.Model:
    """The net with the interface of the exported files. The net must be float32."""
    image = keras.Input(net.input_shape[1:], dtype="uint8", name="image")
    probabilities = net(image)
    outputs = {
        "probabilities": probabilities,
        "class_id": _ClassId(name="class_id")(probabilities),
    }
    return keras.Model(image, outputs, name="serving")


def write(
    kind: str, serving: keras.Model, path: Path, opset: int, facts: Mapping[str, Any]
) -> None:
    """Write one format to `path`.

    Args:
        kind: `"saved_model"`, `"onnx"` or `"litert"`.
        serving: what `serving_model` returned.
        path: file or folder to write; its suffix must be the format's.
        opset: of ONNX; see `OPSETS`.
        facts: what ONNX keeps as metadata; see `metadata`.
    """
    signature = [keras.InputSpec(shape=serving.input_shape, dtype="uint8", name="image")]
    with _quiet():
        if kind == SAVED_MODEL:
            _write_saved_model(serving, path)
        elif kind == ONNX:
            serving.export(
                path, format="onnx", input_signature=signature, opset_version=opset, verbose=False
            )
            _finish_onnx(path, facts)
        elif kind == LITERT:
            serving.export(
                path,
                format="litert",
                input_signature=signature,
                verbose=False,
                # Without SELECT_TF_OPS a Flex op is an error.
                target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
            )
        else:
            raise ValueError(f"kind must be one of {', '.join(FILES)}. Received: {kind}")


def _write_saved_model(serving: keras.Model, path: Path) -> None:
    # `serving.export()` writes every weight twice and takes three times as long (Keras 3.15).
    module = tf.Module()
    module.weights = [variable.value for variable in serving.variables]
    spec = tf.TensorSpec(serving.input_shape, tf.uint8, name="image")
    serve = tf.function(lambda image: serving(image, training=False), input_signature=[spec])
    module.serve = serve
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})


def _finish_onnx(path: Path, facts: Mapping[str, Any]) -> None:
    """Name the batch axis, put the outputs in order, add metadata, check the whole file."""
    model = onnx.load(path)
    graph = model.graph
    outputs = sorted(graph.output, key=lambda output: output.name != "probabilities")
    del graph.output[:]
    graph.output.extend(outputs)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_AXIS
    graph.name = facts["name"]
    model.doc_string = facts["description"]
    onnx.helper.set_model_props(model, metadata(facts))
    del graph.value_info[:]  # names its own batch axes; inferred again below
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def metadata(facts: Mapping[str, Any]) -> dict[str, str]:
    """Metadata of the ONNX file: Ultralytics' keys from `description` to `names`, then ours.

    Ultralytics and the tools that follow it read the values with `ast.literal_eval`.
    """
    height, width, channels = facts["input_shape"]
    values = {
        "description": facts["description"],
        "version": facts["versions"]["keras_resnet"],
        "task": "classify",
        "batch": 1,
        "channels": channels,
        "imgsz": [height, width],
        "names": dict(enumerate(facts["class_names"])),
        "model": facts["model"],
        "depth": facts["depth"],
        "shortcut": facts["shortcut"],
        "dataset": facts["dataset"],
        "test_error": facts["test_error"].get("keras"),
        "git_commit": facts["git_commit"],
        "input": f"{height}x{width} RGB, 0..255, uint8, NHWC; normalization is in the graph",
    }
    return {key: str(value) for key, value in values.items() if value is not None}


def runner(kind: str, path: Path) -> Runner:
    """Open an exported file as its users do, without the net it was made from."""
    if kind == SAVED_MODEL:
        loaded = tf.saved_model.load(str(path))
        serve = loaded.signatures["serving_default"]

        def run(images: np.ndarray, _keep: Any = loaded) -> tuple[np.ndarray, np.ndarray]:
            outputs = serve(image=tf.constant(images))
            return outputs["probabilities"].numpy(), outputs["class_id"].numpy()

        return run
    if kind == ONNX:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda images: tuple(
            session.run(["probabilities", "class_id"], {"image": np.ascontiguousarray(images)})
        )
    return _litert_runner(path)


def error(file: Path, data: Dataset) -> float:
    """Test error of an ONNX file on a data set, in percent."""
    run, batch = runner(ONNX, file), 250
    wrong = [
        run(data.test_images[k : k + batch])[1] != data.test_labels[k : k + batch]
        for k in range(0, len(data.test_labels), batch)
    ]
    return round(float(np.mean(np.concatenate(wrong)) * 100), 4)


def _litert_runner(path: Path) -> Runner:
    with _quiet():
        interpreter = litert_interpreter()(model_path=str(path))

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(index, images.shape)
        interpreter.allocate_tensors()
        outputs = interpreter.get_signature_runner("serving_default")(image=images)
        return outputs["probabilities"], outputs["class_id"]

    return run


def litert_interpreter() -> Any:
    """The interpreter class of ai-edge-litert, else of TensorFlow; UserError without both."""
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    except ImportError:
        pass
    if hasattr(getattr(tf, "lite", None), "Interpreter"):
        return tf.lite.Interpreter
    raise UserError(
        f"--formats litert needs an interpreter to verify with, and TensorFlow {tf.__version__} "
        "has none any more; pip install ai-edge-litert, or leave litert out"
    )


def check_litert() -> None:
    """Raise UserError, naming what is missing, where LiteRT cannot be written or run."""
    if not hasattr(getattr(tf, "lite", None), "TFLiteConverter"):
        raise UserError(
            "--formats litert needs tf.lite.TFLiteConverter, which TensorFlow "
            f"{tf.__version__} does not have; use TensorFlow 2.21, or leave litert out"
        )
    litert_interpreter()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the deprecation notes of Keras, tf2onnx and TensorFlow about each other."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*np.object.*")
            warnings.filterwarnings("ignore", category=UserWarning, message=r"(?s).*tf\.lite.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
