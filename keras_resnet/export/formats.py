"""The formats of an export by name: which file each writes, and how it is run again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_resnet.export import litert, onnx_file, saved_model
from keras_resnet.export.choices import LITERT, ONNX, SAVED_MODEL
from keras_resnet.export.quiet import quiet
from keras_resnet.export.signature import Runner

FILES = {SAVED_MODEL: "saved_model", ONNX: "model.onnx", LITERT: "model.tflite"}
QUANTIZED = "model.int8.onnx"


def write(
    kind: str, serving: keras.Model, path: Path, opset: int, facts: Mapping[str, Any]
) -> None:
    """Write one format to `path`.

    Args:
        kind: `"saved_model"`, `"onnx"` or `"litert"`.
        serving: what `signature.serving_model` returned.
        path: file or folder to write; its suffix must be the format's.
        opset: of ONNX; of `choices.OPSETS`.
        facts: what ONNX keeps as metadata; see `onnx_file.metadata`.
    """
    with quiet():
        if kind == SAVED_MODEL:
            saved_model.write(serving, path)
        elif kind == ONNX:
            onnx_file.write(serving, path, opset, facts)
        elif kind == LITERT:
            litert.write(serving, path)
        else:
            raise ValueError(f"kind must be one of {', '.join(FILES)}. Received: {kind}")


def runner(kind: str, path: Path) -> Runner:
    """Open an exported file as its users do, without the net it was made from."""
    if kind == SAVED_MODEL:
        return saved_model.runner(path)
    if kind == ONNX:
        return onnx_file.runner(path)
    return litert.runner(path)
