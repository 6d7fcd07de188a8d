"""Use a trained net, whatever its format: `.keras`, SavedModel and ONNX behave the same.

    classifier = Classifier.load("experiments/resnet20/seed-0/export/model.onnx")
    probabilities = classifier.predict(["cat.png", "dog.jpg"])      # float32 (2, 10)
    classifier.class_names[probabilities[0].argmax()]               # "cat"
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from keras_resnet.cli import UserError

CHUNK = 256  # images decoded and run at a time: bounds the memory, fast on CPU and GPU
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # none runs another program
MAX_PIXELS = 64_000_000  # of an image, checked before it is decoded: 192 MB as RGB
MAX_IMAGE_BYTES = 512 * 2**20
_MAX_ONNX_BYTES = 2**30
_MAX_TEXT_BYTES = 2**20  # of class names

Run = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A net of this package, loaded by `Classifier.load`.

    Attributes:
        path: what it was loaded from.
        format: `"keras"`, `"saved_model"` or `"onnx"`.
        class_names: in the order of the probabilities; `class 0`, `class 1`, ... where the model comes
            with none.
        image_size: (height, width) that the net takes.
    """

    path: Path
    format: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    _run: Run = dataclasses.field(repr=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Classifier:
        """Open a `.keras` file, a run folder, a SavedModel folder or an `.onnx` file.

        The names of the classes are ONNX metadata (`names`), else what `labels.txt` or a run's
        `config.json` beside the model says. A SavedModel is a TensorFlow program: open only those you
        trust.

        Raises:
            UserError: if it is missing, damaged or not a net of this package; the message is one line.
        """
        path = Path(path)
        if (path / "saved_model.pb").is_file():
            kind, names, (run, shape, classes) = "saved_model", None, _open_saved_model(path)
        elif path.suffix == ".onnx" and path.is_file():
            kind, (names, run, shape, classes) = "onnx", _open_onnx(path)
        elif path.suffix == ".keras" or (path / "model.keras").is_file():
            path = path / "model.keras" if path.is_dir() else path
            kind, names, (run, shape, classes) = "keras", None, _open_keras(path)
        elif path.exists():
            raise UserError(f"the model must be {_EXPECTED}. Received: {path}")
        else:
            raise UserError(f"there is no model at {path}: name {_EXPECTED}")
        if len(shape) != 4 or shape[0] is not None or None in shape[1:] or shape[3] != 3 or not classes:
            raise UserError(
                f"the model must take RGB images (N, height, width, 3) and return probabilities "
                f"(N, classes). Received: {path} with input {shape} and {classes or 'unknown'} classes"
            )
        names = names or _names_beside(path, classes) or tuple(f"class {k}" for k in range(classes))
        if len(names) != classes:
            raise UserError(f"{path} has {classes} classes but metadata with {len(names)} names")
        return cls(path, kind, names, (shape[1], shape[2]), run)

    def predict(self, images: Any) -> np.ndarray:
        """Class probabilities, float32 `(N, classes)`, of N images.

        Args:
            images: a uint8 array `(height, width, 3)` or `(N, height, width, 3)` of RGB pixels 0..255,
                a file path, a PIL image, or a list (any iterable) of single ones of these. How files
                and images of other sizes and modes are converted: `read_image`.

        `CHUNK` images at a time are decoded and run, so that an iterable of any length fits in memory.

        Raises:
            ValueError: for an array of another shape or dtype, or a PIL image that cannot be converted.
            UserError: for a file that is missing or no readable image; the message names it.
        """
        results = [self._probabilities(chunk) for chunk in self._chunks(images)]
        return np.concatenate(results or [np.empty((0, len(self.class_names)), np.float32)])

    def _probabilities(self, chunk: np.ndarray) -> np.ndarray:
        probabilities = np.asarray(self._run(chunk), np.float32)
        if not np.isfinite(probabilities).all():
            raise UserError(f"{self.path} gives probabilities that are not finite: it is damaged")
        return probabilities

    def _chunks(self, images: Any) -> Iterator[np.ndarray]:
        if isinstance(images, str | os.PathLike | PIL.Image.Image):
            images = [images]
        if hasattr(images, "__array__"):
            array = np.asarray(images)
            images = _checked(array[None] if array.ndim == 3 else array)
            if images.shape[1:3] == self.image_size:
                for start in range(0, len(images), CHUNK):
                    yield np.ascontiguousarray(images[start : start + CHUNK])
                return
        if not isinstance(images, Iterable):
            _checked(np.asarray(images))
        iterator = iter(images)
        while part := [
            read_image(image, self.image_size) for image in itertools.islice(iterator, CHUNK)
        ]:
            yield np.stack(part)


_EXPECTED = (
    "a .keras file, a run folder (with model.keras), a SavedModel folder (with saved_model.pb) "
    "or an .onnx file"
)


# --- images ----------------------------------------------------------------------------------------


def read_image(image: Any, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """One image as the net takes it: uint8 RGB `(height, width, 3)`.

    Args:
        image: a file path (PNG, JPEG, BMP, GIF, PPM, TIFF or WebP; of several frames the first), a PIL
            image, or a uint8 array `(height, width, 3)`.
        size: (height, width) to resize to. The whole image is used, its aspect ratio is not kept.
            The filter is Pillow's bicubic: it widens with the factor, so that shrinking a photo does
            not alias, and keeps edges sharper than bilinear (CIFAR's images enlarged 8x by bicubic
            and shrunk again are off by 2.2 grey levels on average, shrunk by bilinear by 3.6).

    Grey becomes three equal channels; 16-bit grey (and Pillow's mode "I") is scaled from 0..65535;
    transparent parts are laid over white; palette, CMYK and 1-bit become RGB; EXIF rotation is applied;
    color profiles are ignored. At most `MAX_PIXELS` pixels are read; the header says how many there are
    before anything is decoded.

    Raises:
        ValueError: for an array of another shape or dtype, or a PIL image of float pixels or too many.
        UserError: for a file that is missing or no readable image; the message is one line naming it.
    """
    if isinstance(image, str | os.PathLike):
        return _read_file(Path(image), size)
    if not isinstance(image, PIL.Image.Image):
        array = _checked(np.asarray(image)[None])[0]
        if array.shape[:2] == tuple(size):
            return array
        image = PIL.Image.fromarray(np.ascontiguousarray(array))
    return _convert(image, size)


def _checked(images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        hint = "; pixels 0..1: (255 * x).round().astype('uint8')" if images.dtype.kind == "f" else ""
        raise ValueError(
            "images must be uint8 arrays (height, width, 3) or (N, height, width, 3) of pixels 0..255, "
            f"file paths or PIL images. Received: {images.dtype} array of shape {images.shape}"
            f"{hint}"
        )
    return images


def _read_file(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        if not path.is_file():
            raise ValueError("it is not a file" if path.exists() else "there is no such file")
        if not (length := path.stat().st_size):
            raise ValueError("it is empty: 0 bytes")
        if length > MAX_IMAGE_BYTES:
            raise ValueError(f"it has {length:,} bytes; at most {MAX_IMAGE_BYTES:,} are read")
        # Pillow warns of large images, which we refuse, and of damaged metadata, which we do not use.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(path, formats=IMAGE_FORMATS) as image:
                return _convert(image, size)
    except PIL.UnidentifiedImageError:
        reason = f"it is none of {', '.join(IMAGE_FORMATS)}"
    except PIL.Image.DecompressionBombError:
        reason = _TOO_LARGE
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        reason = str(error) or type(error).__name__
    raise UserError(f"{printable(path)} could not be read as an image: {reason}")


_TOO_LARGE = f"it has more pixels than the {MAX_PIXELS:,} that are read"


def _convert(image: PIL.Image.Image, size: tuple[int, int]) -> np.ndarray:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(_TOO_LARGE)
    if not image.width * image.height:
        raise ValueError("it has no pixels")
    if image.mode == "F":
        raise ValueError("its pixels are floats, of which the range is not known")
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # Pillow's own conversion clips to 0..255
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        image = PIL.Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB").resize(size[::-1], PIL.Image.Resampling.BICUBIC)
    return np.asarray(image)


# --- models ----------------------------------------------------------------------------------------
# Each opener returns a function from uint8 (n, height, width, 3) to probabilities, the shape of the input
# (None: any) and the number of classes.


def _open_keras(path: Path) -> tuple[Run, tuple[int | None, ...], int | None]:
    from keras_resnet.loading import load_keras

    net = load_keras(path)
    return net.predict_on_batch, tuple(net.input_shape), net.output_shape[-1]


def _open_saved_model(path: Path) -> tuple[Run, tuple[int | None, ...], int | None]:
    import tensorflow as tf

    try:
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    except Exception as error:  # TensorFlow raises many kinds on damaged files
        raise UserError(f"{path} could not be read as a SavedModel: {_reason(error)}") from None
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if {k: v.dtype for k, v in inputs.items()} != {"image": tf.uint8} or "probabilities" not in outputs:
        found = ", ".join(f"{name} {spec.dtype.name}" for name, spec in inputs.items())
        raise UserError(_foreign(path, found, outputs))
    shape = inputs["image"].shape
    return (
        lambda images: signature(image=tf.constant(images))["probabilities"].numpy(),
        tuple(shape) if shape.rank else (),
        outputs["probabilities"].shape[-1],
    )


def _open_onnx(
    path: Path,
) -> tuple[tuple[str, ...] | None, Run, tuple[int | None, ...], int | None]:
    import onnxruntime

    if path.stat().st_size > _MAX_ONNX_BYTES:
        raise UserError(f"{path} is larger than the {_MAX_ONNX_BYTES:,} bytes that are read")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong comes as an exception
    providers = [
        name
        for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
        if name in onnxruntime.get_available_providers()
    ]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime raises many kinds on damaged files
        raise UserError(f"{path} could not be read as an ONNX model: {_reason(error)}") from None
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    if {k: v.type for k, v in inputs.items()} != {"image": "tensor(uint8)"} or (
        "probabilities" not in outputs
    ):
        found = ", ".join(f"{name} {node.type}" for name, node in inputs.items())
        raise UserError(_foreign(path, found, outputs))

    def sizes(dimensions: Sequence[int | str | None]) -> tuple[int | None, ...]:
        return tuple(size if isinstance(size, int) else None for size in dimensions)

    shape = sizes(inputs["image"].shape)
    classes = (sizes(outputs["probabilities"].shape) or (None,))[-1]
    text = session.get_modelmeta().custom_metadata_map.get("names")
    names = None if text is None else _parse_names(text, path)
    return names, lambda images: session.run(["probabilities"], {"image": images})[0], shape, classes


def _foreign(path: Path, inputs: str, outputs: Iterable[str]) -> str:
    return (
        f"{path} is not a model of this package: it must take uint8 images as 'image' and return "
        f"'probabilities'. Received: inputs {inputs}; outputs {', '.join(outputs)}"
    )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0])[:200] if lines else type(error).__name__


# --- class names -----------------------------------------------------------------------------------


def _parse_names(text: str, path: Path) -> tuple[str, ...]:
    """Names from `{0: 'airplane', 1: ...}`, the form that Ultralytics began; JSON fits it too."""
    with contextlib.suppress(SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        if len(text) <= _MAX_TEXT_BYTES:
            found = ast.literal_eval(text.strip())
            found = found if isinstance(found, dict) else dict(enumerate(found))
            by_index = {int(k): v for k, v in found.items()}
            if by_index and sorted(by_index) == list(range(len(by_index))):
                return tuple(printable(by_index[k]) for k in range(len(by_index)))
    raise UserError(f"{path}: metadata 'names' must be {{0: name, 1: name, ...}}")


def _names_beside(path: Path, classes: int) -> tuple[str, ...] | None:
    """Names from labels.txt (one a line) or a run's config.json in the model's folder."""
    for file in (path.parent / "labels.txt", path.parent / "config.json"):
        if not file.is_file() or file.stat().st_size > _MAX_TEXT_BYTES:
            continue
        try:
            text = file.read_text("utf-8")
            names = text.splitlines() if file.suffix == ".txt" else json.loads(text)["class_names"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # no such file of ours
        if not isinstance(names, list) or len(names) != classes:
            raise UserError(f"{file} must name the {classes} classes of {path.name}: mend or move it")
        return tuple(map(printable, names))
    return None


def printable(value: object) -> str:
    """Text that is safe to print: what comes from files may hold control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def add_model_flag(parser: argparse.ArgumentParser) -> None:
    """The `--model` of the commands."""
    parser.add_argument("--model", required=True, metavar="PATH", help=_EXPECTED)
