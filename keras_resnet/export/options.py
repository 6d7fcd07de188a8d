"""What an export writes. Without Keras: `export --help` need not wait for it."""

import dataclasses
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import UserError, did_you_mean, missing

FORMATS = ("saved_model", "onnx", "openvino", "litert", "safetensors", "web")
OUTPUTS = ("probabilities", "class_id", "logits", "features")
OPSETS = range(13, 19)  # quantization per channel begins with 13, tf2onnx 1.17 ends at 18
_KNOWN = {
    "formats": FORMATS, "outputs": OUTPUTS, "layout": ("nhwc", "nchw"), "input": ("uint8", "float32")
}  # fmt: skip
# What other exporters call our formats, or what comes nearest.
_OTHER_NAMES = {"tflite": "litert", "torchscript": "safetensors", "pytorch": "safetensors"}


def _option(default: Any, help: str, **flag: Any) -> Any:
    """A field, with the arguments of its flag for argparse."""
    return dataclasses.field(default=default, metadata={"help": help, **flag})


_switch = functools.partial(_option, False, action="store_true")


def _several(known: Sequence[str]) -> Any:
    """A list, the first two by default."""
    help = f"of {', '.join(known)} (default: {' '.join(known[:2])})"
    return _option(known[:2], help, nargs="+", metavar="NAME")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to write, and how. Raises UserError for values that are not known, or do not go together."""

    formats: Sequence[str] = _several(FORMATS)
    quantize: bool = _switch(
        "also int8 versions of the ONNX and LiteRT files, calibrated on training images"
    )
    half: bool = _switch("also model.fp16.onnx: float16, except the normalization")
    outputs: Sequence[str] = _several(OUTPUTS)
    layout: str = _option("nhwc", "of the input: nhwc, or nchw as in PyTorch (default: nhwc)")
    input: str = _option("uint8", "pixels 0..255 as uint8 or float32 (default: uint8)")
    batch_size: int | None = _option(None, "images per call, fixed (default: free)", type=int)
    raw: bool = _switch("--layout nchw --input float32 --outputs logits, for converters")
    # onnx2torch cannot read 18.
    opset: int = _option(17, f"of ONNX, {OPSETS[0]} to {OPSETS[-1]} (default: 17)", type=int)
    runtime: Path | str | None = _option(
        None, "for web: npm's onnxruntime-web, unpacked, so that the page works without network"
    )

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            given = getattr(self, name)
            if isinstance(given, str):
                given = (given,)
                if name in ("formats", "outputs"):
                    object.__setattr__(self, name, given)
            unknown = next((value for value in given if value not in known), None)
            if unknown or not given:
                hint = did_you_mean(_OTHER_NAMES.get(str(unknown), str(unknown)), known)
                raise UserError(
                    f"`{name}` must be of {', '.join(known)}. Received: {unknown}{hint}"
                )
        for package in {"openvino", "safetensors"}.intersection(self.formats):
            if importlib.util.find_spec(package) is None:
                raise missing(package, f"the format {package}")
        special = (self.layout, self.input, *self.outputs) != ("nhwc", "uint8", *OUTPUTS[:2])
        if self.raw and special:
            raise UserError("`raw` fixes `layout`, `input` and `outputs`: leave these out")
        if self.raw:
            for name, value in ("layout", "nchw"), ("input", "float32"), ("outputs", ["logits"]):
                object.__setattr__(self, name, value)
        if "web" in self.formats and (special or self.raw or self.batch_size):
            raise UserError("the page needs the default input and outputs: export it separately")
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(f"`batch_size` must be 1 or more. Received: {self.batch_size}")
        if self.opset not in OPSETS:
            raise UserError(f"`opset` must be {OPSETS[0]} to {OPSETS[-1]}. Received: {self.opset}")
        if self.half and not self.writes("onnx"):
            raise UserError("`half` changes the ONNX file: add onnx to `formats`")
        if self.quantize and not (self.writes("int8") or self.writes("int8_litert")):
            raise UserError("`quantize` changes ONNX and LiteRT: add onnx or litert to `formats`")
        if self.quantize and {*self.outputs} == {"features"}:
            raise UserError("`quantize` measures the error: add probabilities to `outputs`")
        if self.runtime is not None and "web" not in self.formats:
            raise UserError("`runtime` is for the page: add web to `formats`")

    def writes(self, kind: str) -> bool:
        """Whether a file of this kind is written: of `FORMATS`, or keras, half, int8 or int8_litert."""
        formats = {*self.formats}
        if not formats.isdisjoint({"openvino", "web"}):  # made of the ONNX file
            formats.add("onnx")
        by_flag = {
            "keras": True,
            "half": self.half,
            "int8": self.quantize and "onnx" in formats,
            "int8_litert": self.quantize and "litert" in formats,
        }
        return by_flag.get(kind, kind in formats)

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Images, uint8 `(N, H, W, 3)`, as the exported files take them."""
        images = images.transpose(0, 3, 1, 2) if self.layout == "nchw" else images
        return np.ascontiguousarray(images, self.input)
