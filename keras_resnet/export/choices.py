"""What an export may be asked for. Without Keras, for which `export --help` would have to wait."""

from __future__ import annotations

SAVED_MODEL, ONNX, LITERT, WEB = "saved_model", "onnx", "litert", "web"
FORMATS = (SAVED_MODEL, ONNX, LITERT, WEB)
DEFAULT_FORMATS = (SAVED_MODEL, ONNX)
OPSETS = range(13, 19)  # quantization per channel begins with 13, tf2onnx 1.17 ends at 18
OPSET = 17  # 18 shuts out onnx2torch and, for int8, the reference evaluator of onnx itself
