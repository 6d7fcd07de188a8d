"""ONNX: write it, and open it as its users do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from keras_resnet.export.signature import INPUT, OUTPUTS, Predict, input_signature, without_warnings

BATCH_AXIS = "batch"


def write(serving: keras.Model, path: Path, opset: int, facts: Mapping[str, Any]) -> None:
    """Write the file `path`.

    Args:
        serving: what `signature.serving_model` returned.
        path: file to write.
        opset: of `formats.OPSETS`.
        facts: the content of export.json as far as it is known; kept as metadata.
    """
    with without_warnings():
        serving.export(
            path,
            format="onnx",
            input_signature=input_signature(serving),
            opset_version=opset,
            verbose=False,
        )
    model = onnx.load(path)
    graph = model.graph
    outputs = sorted(graph.output, key=lambda output: OUTPUTS.index(output.name))
    del graph.output[:]
    graph.output.extend(outputs)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_AXIS
    _name_by_layers(graph, facts["name"])
    graph.name = facts["name"]
    model.doc_string = facts["description"]
    onnx.helper.set_model_props(model, _metadata(facts))
    used = {node.domain for node in graph.node}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    save(model, path)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Check a model, and write it without the shapes between its input and its outputs.

    tract, for one, reads their symbolic batch as a contradiction where the user fixes the batch.
    """
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)
    onnx.save(model, path)


def _name_by_layers(graph: onnx.GraphProto, net: str) -> None:
    """Name nodes and tensors after the net's layers: `stem_conv`, not `Conv__94`."""
    prefix = re.compile(rf"^serving_\d+/(?:{re.escape(net)}_\d+/)?")

    def rename(name: str) -> str:
        # tf2onnx writes serving_1/<net>_1/<layer>_1/<operation>
        return re.sub(r"^(\w+?)_\d+(?=/)", r"\1", prefix.sub("", name))

    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        node.name = rename(node.name)
        # Folded into its convolution, a batch normalization gave the node its name; the kernel knows better.
        layer = rename(node.input[1]).split("/")[:-2] if node.op_type == "Conv" else []
        if layer:
            node.name = "/".join(layer)
            names.setdefault(node.output[0], f"{node.name}:0")
    tensors = [name for node in graph.node for name in (*node.input, *node.output)]
    for name in dict.fromkeys([*tensors, *(value.name for value in graph.initializer)]):
        names.setdefault(name, rename(name))
    if len(set(names.values())) != len(names):
        return  # two tensors would get the same name
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names[name] for name in field]
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]


def _metadata(facts: Mapping[str, Any]) -> dict[str, str]:
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
        **{key: facts[key] for key in ("model", "depth", "shortcut", "dataset", "git_commit")},
        "test_error": facts["test_error"].get("keras"),
        "input": f"{height}x{width} RGB, 0..255, uint8, NHWC; normalization is in the graph",
    }
    return {key: str(value) for key, value in values.items() if value is not None}


def set_metadata(path: Path, **values: object) -> None:
    """Change entries of a file's metadata."""
    model = onnx.load(path)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**entries, **{k: str(v) for k, v in values.items()}})
    onnx.save(model, path)


def load(path: Path) -> Predict:
    """Open the file as its users do."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: tuple(session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(images)}))
