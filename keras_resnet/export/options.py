"""What an export writes. Without Keras: `export --help` need not wait for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_resnet.errors import UserError

SAVED_MODEL, ONNX, LITERT, WEB = "saved_model", "onnx", "litert", "web"
FILES = {SAVED_MODEL: "saved_model", ONNX: "model.onnx", LITERT: "model.tflite", WEB: "web"}
INT8_FILE = "model.int8.onnx"
KERAS_FILE = "model.keras"  # in every export
OPSETS = range(13, 19)  # quantization per channel begins with 13, tf2onnx 1.17 ends at 18


def _option(default: Any, help: str, **flag: Any) -> Any:
    """A field, and how argparse makes a flag of it."""
    return dataclasses.field(default=default, metadata={"help": help, **flag})


@dataclasses.dataclass(frozen=True)
class Options:
    """What to write, and how; the help of each flag says more.

    Raises:
        UserError: for values that are not known, or do not go together.
    """

    # The page runs the ONNX file, which is therefore written too.
    formats: Sequence[str] = _option(
        (SAVED_MODEL, ONNX),
        f"of {', '.join(FILES)} (default: {SAVED_MODEL} {ONNX})",
        nargs="+",
        metavar="FORMAT",
    )
    quantize: bool = _option(
        False, f"also {INT8_FILE}, calibrated on training images", action="store_true"
    )
    # onnx2torch and, for int8, onnx's reference evaluator cannot read 18.
    opset: int = _option(
        17, f"of ONNX, {OPSETS[0]} to {OPSETS[-1]} (default: %(default)s)", type=int
    )
    runtime: Path | str | None = _option(
        None,
        "for web: the npm package onnxruntime-web, unpacked, or its dist; copied beside the page, which "
        "then needs no network (default: the page loads it from a CDN)",
        metavar="DIR",
    )

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in FILES]
        if unknown or not self.formats:
            raise UserError(f"`formats` must be of {', '.join(FILES)}. Received: {unknown}")
        if self.opset not in OPSETS:
            raise UserError(f"`opset` must be {OPSETS[0]} to {OPSETS[-1]}. Received: {self.opset}")
        if self.quantize and not self.onnx:
            raise UserError("`quantize` makes int8 from the ONNX file: add onnx to `formats`")
        if self.runtime is not None and WEB not in self.formats:
            raise UserError("`runtime` is for the page: add web to `formats`")

    @property
    def onnx(self) -> bool:
        """Whether `model.onnx` is written."""
        return ONNX in self.formats or WEB in self.formats
