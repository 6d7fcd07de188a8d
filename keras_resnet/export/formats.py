"""The formats of an export and the files they write. Without Keras: `export --help` need not wait for it."""

from __future__ import annotations

SAVED_MODEL, ONNX, LITERT, WEB = "saved_model", "onnx", "litert", "web"
FILES = {SAVED_MODEL: "saved_model", ONNX: "model.onnx", LITERT: "model.tflite", WEB: "web"}
DEFAULT_FORMATS = (SAVED_MODEL, ONNX)
INT8_FILE = "model.int8.onnx"
KERAS_FILE = "model.keras"  # in every export
OPSETS = range(13, 19)  # quantization per channel begins with 13, tf2onnx 1.17 ends at 18
OPSET = 17  # onnx2torch and, for int8, onnx's reference evaluator cannot read 18
