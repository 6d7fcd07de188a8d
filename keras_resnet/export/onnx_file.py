"""ONNX: how it is written, finished and checked, and how it is run again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from keras_resnet.data.dataset import Dataset
from keras_resnet.export import signature
from keras_resnet.export.signature import Runner

BATCH_AXIS = "batch"


def write(serving: keras.Model, path: Path, opset: int, facts: Mapping[str, Any]) -> None:
    """Write the file `path`, with `metadata(facts)`."""
    serving.export(
        path,
        format="onnx",
        input_signature=signature.keras_spec(serving),
        opset_version=opset,
        verbose=False,
    )
    _finish(path, facts)


def _finish(path: Path, facts: Mapping[str, Any]) -> None:
    """Name the batch axis, put the outputs in order, add metadata, check the whole file."""
    model = onnx.load(path)
    graph = model.graph
    outputs = sorted(graph.output, key=lambda output: signature.OUTPUTS.index(output.name))
    del graph.output[:]
    graph.output.extend(outputs)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_AXIS
    graph.name = facts["name"]
    model.doc_string = facts["description"]
    onnx.helper.set_model_props(model, metadata(facts))
    _name_by_layers(graph)
    _pool_by_maximum(graph)
    _drop_unused_opsets(model)
    del graph.value_info[:]  # names its own batch axes; inferred again below
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)
    # Saved without the inferred shapes: tract takes them for facts where the user fixes the batch.
    onnx.save(model, path)


def _name_by_layers(graph: onnx.GraphProto) -> None:
    """Name nodes and tensors by the net's layers: `stem_conv`, not `Conv__94`."""
    names: dict[str, str] = {}
    # tf2onnx names by call: serving_1/<net>_1/<layer>_1/...
    prefix = re.compile(rf"^serving_\d+/(?:{re.escape(graph.name)}_\d+/)?")

    def new(name: str) -> str:
        return re.sub(r"^(\w+?)_\d+(?=/)", r"\1", prefix.sub("", name))

    interface = {value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        node.name = new(node.name)
        if node.op_type == "Conv" and len(node.input) > 1:
            node.name = new(node.input[1]).partition("/")[0]
            names[node.output[0]] = f"{node.name}:0"
    tensors = [name for node in graph.node for name in (*node.input, *node.output)]
    for name in dict.fromkeys([*tensors, *(value.name for value in graph.initializer)]):
        if name not in interface:
            names.setdefault(name, new(name))
    taken = [*names.values(), *interface]
    if len(set(taken)) != len(taken):
        return  # two tensors would share a name: leave theirs as they are
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def _pool_by_maximum(graph: onnx.GraphProto) -> None:
    """Take a shortcut's pixels by a 1x1 maximum instead of a 1x1 average: equal bits, faster in int8."""
    for node in graph.node:
        sides = [list(a.ints) for a in node.attribute if a.name == "kernel_shape"]
        if node.op_type == "AveragePool" and sides == [[1, 1]]:
            node.op_type = "MaxPool"
            kept = [a for a in node.attribute if a.name != "count_include_pad"]
            del node.attribute[:]
            node.attribute.extend(kept)


def _drop_unused_opsets(model: onnx.ModelProto) -> None:
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def set_metadata(path: Path, **values: object) -> None:
    """Change entries of a file's metadata."""
    model = onnx.load(path)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**entries, **{k: str(v) for k, v in values.items()}})
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


def runner(path: Path) -> Runner:
    """Open the file as its users do."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: tuple(
        session.run(list(signature.OUTPUTS), {signature.INPUT: np.ascontiguousarray(images)})
    )


def error(file: Path, data: Dataset) -> float:
    """Test error of an ONNX file on a data set, in percent."""
    run, batch = runner(file), 250
    wrong = [
        run(data.test_images[k : k + batch])[1] != data.test_labels[k : k + batch]
        for k in range(0, len(data.test_labels), batch)
    ]
    return round(float(np.mean(np.concatenate(wrong)) * 100), 4)
