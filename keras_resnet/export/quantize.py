"""An exported float32 ONNX net as 8-bit integers: static QDQ quantization; docs/export.md has the reasons."""

import warnings
from pathlib import Path

import numpy as np
import onnx

from keras_resnet.export.onnx_file import FILE
from keras_resnet.export.options import Options
from keras_resnet.export.signature import INPUT

CALIBRATION_IMAGES = 512
METHOD = f"static QDQ, uint8 x int8 per channel, up to {CALIBRATION_IMAGES} training images"
OPSET = 21
_BATCH = 64
# Relu is listed so that it disappears: the range of the 8 bits then starts at zero.
_INTEGER_OPS = ["Conv", "Relu", "Add", "AveragePool", "MaxPool", "Pad"]


def calibration_batches(images: np.ndarray, options: Options) -> np.ndarray:
    """Some of the training images, uint8 `(N, H, W, 3)`, in batches that the exported files take."""
    chosen = np.random.default_rng(0).permutation(len(images))[:CALIBRATION_IMAGES]
    images = options.prepare(images[np.sort(chosen)])
    size = options.batch_size or _BATCH
    return np.resize(images, (max(len(images) // size, 1), size, *images.shape[1:]))


def quantize(path: Path, calibration: np.ndarray) -> None:
    """Write the int8 version of the ONNX file beside it, with ranges from what `calibration_batches` gave.

    Weights have 7 bits: CPUs without VNNI add pairs of products in 16 bits, which 8-bit weights overflow.
    """
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):
        batches = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    # The reference evaluator of onnx reads integers of opset 21 and above.
    model = onnx.version_converter.convert_version(onnx.load(path.with_name(FILE)), OPSET)
    model = onnx.shape_inference.infer_shapes(model)
    # Else quantize_static warns.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    constants = {tensor.name for tensor in model.graph.initializer}
    float32 = [  # the normalization and the head
        node.name
        for node in model.graph.node
        if node.op_type == "Add" and not constants.isdisjoint(node.input)
    ]
    with warnings.catch_warnings(action="ignore"):
        quantization.quantize_static(
            model,
            path,
            Images(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=_INTEGER_OPS,
            nodes_to_exclude=float32,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
