"""ONNX, in float32 and float16: write it. `inference/open.py` opens it."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import onnx

from keras_resnet.export.options import Options
from keras_resnet.export.signature import export

FILE, HALF_FILE, INT8_FILE = "model.onnx", "model.fp16.onnx", "model.int8.onnx"


def write(serving: keras.Model, path: Path, options: Options, facts: Mapping[str, Any]) -> None:
    """Write what `signature.serving_model` returned; the facts of export.json become metadata."""
    export(serving, path, "onnx", opset_version=options.opset)
    model = onnx.load(path)
    graph = model.graph
    graph.output.sort(key=lambda output: list(options.outputs).index(output.name))
    for value in (*graph.input, *graph.output):
        if options.batch_size is None:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    graph.name = facts["name"]
    used = {node.domain for node in graph.node}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    save(model, path, facts)


def write_half(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the float16 version of the ONNX file beside it, float32 up to its first convolution."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load(path.with_name(FILE))
    normalization = itertools.takewhile(lambda node: node.op_type != "Conv", model.graph.node)
    names = [node.name for node in normalization]
    half = convert_float_to_float16(model, keep_io_types=True, node_block_list=names)
    OnnxModel(half).topological_sort()  # the conversion appends its casts
    save(half, path, facts)


def save(model: onnx.ModelProto, path: Path, facts: Mapping[str, Any], **metadata: object) -> None:
    """Check a model, and write it with its metadata.

    The shapes between input and outputs are left out: tract, for one, reads their symbolic batch as a
    contradiction where the user fixes the batch.
    """
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)
    model.doc_string = facts["description"]
    (height, width, channels), form = facts["input_shape"], facts["input"]
    # Ultralytics' keys from `description` to `names`, which are read by `ast.literal_eval`; then ours.
    values: dict[str, object] = {
        "description": facts["description"],
        "version": facts["versions"]["keras_resnet"],
        "task": "classify",
        "batch": form["batch_size"] or 1,
        "channels": channels,
        "imgsz": [height, width],
        "names": dict(enumerate(facts["class_names"])),
        **{key: facts[key] for key in ("model", "depth", "shortcut", "dataset", "git_commit")},
        "test_error": facts["test_error"].get("keras"),
        "input": f"{height}x{width} RGB, 0..255, {form['dtype']}, {form['layout'].upper()}; "
        "normalization is in the graph",
        **metadata,
    }
    texts = {key: str(value) for key, value in values.items() if value is not None}
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, path)
