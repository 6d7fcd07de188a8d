"""An exported float32 ONNX net as 8-bit integers: static quantization, written as QDQ.

Everything between the normalization and the pooling head runs in integers: ONNX Runtime fuses it to
QLinearConv and QLinearAdd. The head (650 weights of 270,000) stays float32: it would gain nothing and
cost precision.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx

from keras_resnet.export import onnx_file
from keras_resnet.export.signature import INPUT

CALIBRATION_IMAGES = 512
_BATCH = 64
# Relu is listed so that it disappears: the range of the 8 bits then starts at zero.
_INTEGER_OPS = ["Conv", "Relu", "Add", "AveragePool", "MaxPool", "Pad"]


def quantize(source: Path, target: Path, images: np.ndarray) -> None:
    """Write the int8 version of an exported net.

    Activations are uint8 with one scale per tensor, weights int8 with one scale per output channel, in
    7 bits: CPUs without VNNI add pairs of products in 16 bits, which 8-bit weights overflow. On a
    CIFAR-10 ResNet-20 of 23.43 % test error, int8 had 23.32 % with 7 bits and 23.52 % with 8.

    Args:
        source: `model.onnx` as `onnx_file.write` writes it.
        target: file to write, with the same inputs, outputs and metadata.
        images: training images to calibrate the ranges with, uint8 `(N, H, W, 3)`.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(quantization.CalibrationDataReader):
        batches = iter(np.array_split(images, -(-len(images) // _BATCH)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            target,
            Images(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=_INTEGER_OPS,
            nodes_to_exclude=_additions_of_constants(onnx.load(prepared).graph),
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
    original, model = onnx.load(source), onnx.load(target)
    metadata = {entry.key: entry.value for entry in original.metadata_props}
    metadata["quantization"] = (
        f"static QDQ, uint8 x int8 per channel, {len(images)} training images"
    )
    onnx.helper.set_model_props(model, metadata)
    model.doc_string = original.doc_string
    onnx_file.save(model, target)


def _additions_of_constants(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that add a constant: of the normalization and of the head, which stay float32."""
    constants = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "Add" and not constants.isdisjoint(node.input)
    ]
