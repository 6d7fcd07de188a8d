"""Images from files, PIL and arrays, converted to what a net takes: uint8 RGB of its size."""

import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from PIL.Image import Transpose

from keras_resnet import console
from keras_resnet.console import printable
from keras_resnet.data.walk import is_hidden, walk
from keras_resnet.errors import UserError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # none runs another program
# Those from .avif on cannot be read: they are listed so that each is an error and not skipped.
SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".tga",
)  # fmt: skip
MAX_PIXELS = 64_000_000  # of an image, checked before it is decoded: 192 MB as RGB
MAX_SIDE = 65_535  # pixels; the width is resized first: this bounds the rows in between
CHUNK = 256  # images decoded and run at a time, fewer of large ones: bounds the memory
# EXIF's tag, and the turn that sets a picture of each value upright. Pillow's `exif_transpose` also writes
# the other tags anew, which raises where one of them makes no sense.
_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 0x0102, 0x0106
_TURNS: dict[Any, Transpose] = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip


def find_images(folder: Path) -> tuple[list[Path], list[str]]:
    """The images in a folder and its subfolders, sorted, without hidden ones; and what is wrong with it."""
    images: list[Path] = []
    faults: list[OSError] = []
    for parent, names in walk(folder, faults.append):
        images += [
            parent / name
            for name in names
            if name.lower().endswith(SUFFIXES) and not is_hidden(name)
        ]
    problems = [f"folder {f.filename} could not be read: {f.strerror}" for f in faults]
    if not images and not problems:
        problems = [f"folder {folder} holds no image ({' '.join(SUFFIXES)}); leave it out"]
    return sorted(images), problems


def images_per_chunk(height: int, width: int, most: int | None = None) -> int:
    """How many images of a size run at a time: `most` (default: `CHUNK`), fewer of more than 64 x 64."""
    most = most or CHUNK
    return max(1, min(most, most * 64 * 64 // (height * width)))


def read_image(image: Any, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """One image as the net takes it: uint8 RGB `(height, width, 3)`.

    Args:
        image: a file path (PNG, JPEG, BMP, GIF, PPM, TIFF or WebP; of several frames the first),
            an open binary file, a PIL image, or a uint8 array `(height, width, 3)`.
        size: (height, width) to resize to with Pillow's bicubic filter, which does not alias. The whole
            image is used, its aspect ratio is not kept.

    Gray becomes three equal channels; 16-bit gray (and Pillow's mode "I") is scaled from 0..65535, 12-bit
    gray of a TIFF from 0..4095; transparent parts are laid over white; palette, CMYK and 1-bit become RGB;
    EXIF rotation is applied; color profiles are ignored. An image of more than `MAX_PIXELS` pixels, or
    with a side of more than `MAX_SIDE`, is refused by its header, before it is decoded.

    Raises:
        ValueError: for an array of another shape or dtype, or a PIL image that is too large, damaged or
            of float pixels.
        UserError: for a file that is missing or not a readable image; the message names it.
    """
    if isinstance(image, str | os.PathLike) or hasattr(image, "read"):
        return _read_file(image, size)
    if not isinstance(image, PIL.Image.Image):
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            hint = "; 0..1 becomes 0..255 by (255 * x).round().astype('uint8')"
            raise ValueError(
                "images must be uint8 arrays (height, width, 3) or (N, height, width, 3) of pixels 0..255, "
                f"file paths or PIL images. Received: {pixels.dtype} array of shape {pixels.shape}"
                + (hint if pixels.dtype.kind == "f" else "")
            )
        if pixels.shape[:2] == tuple(size):
            return pixels
        image = PIL.Image.fromarray(np.ascontiguousarray(pixels))
    try:
        return _convert(image, size)
    except OSError as error:  # a truncated file that was opened, but not read
        raise ValueError(f"the PIL image could not be decoded: {error}") from None


def _read_file(file: Any, size: tuple[int, int]) -> np.ndarray:
    name = getattr(file, "name", file) if hasattr(file, "read") else file
    try:
        if re.match("https?:/", str(name)):
            raise ValueError("it is a URL; try curl -sL URL | keras-resnet predict -, or save it")
        if not hasattr(file, "read") and os.path.exists(file) and not os.path.isfile(file):
            raise ValueError("it is not a file")  # opening a FIFO would wait
        # Pillow warns of large images, which we refuse, and of metadata that we do not use.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(file, formats=FORMATS) as image:
                return _convert(image, size)
    except PIL.UnidentifiedImageError:
        reason = f"it is none of {', '.join(FORMATS)}"
    except PIL.Image.DecompressionBombError:
        reason = f"it has more than {MAX_PIXELS:,} pixels"
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        reason = str(error) or type(error).__name__
    raise UserError(f"{printable(name)} could not be read as an image: {reason}")


def _convert(image: PIL.Image.Image, size: tuple[int, int]) -> np.ndarray:
    pixels = image.width * image.height
    if not 0 < pixels <= MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise ValueError(
            f"it has {image.width:,} x {image.height:,} pixels; at most {MAX_PIXELS:,}, and "
            f"{MAX_SIDE:,} per side, are read"
        )
    if image.mode == "F":
        raise ValueError("its pixels are floats, of which the range is not known")
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    image.load()  # which turns a TIFF upright
    if (turn := _TURNS.get(image.getexif().get(_ORIENTATION))) is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):  # Pillow's own conversion clips to 0..255
        values, clear = np.asarray(image), image.info.get("transparency")
        most = 4095 if tags.get(_BITS) == (12,) else 65535
        gray = (np.clip(values, 0, most).astype(np.uint32) * 255 + most // 2) // most
        if tags.get(_PHOTOMETRIC) == 0:  # white is 0; Pillow turns 8 bits, but not these
            gray = 255 - gray
        if isinstance(clear, int):
            gray[values == clear] = 255
        image = PIL.Image.fromarray(gray.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    height, width = size
    if not 2 / 3 < image.width * height / (image.height * width) < 3 / 2:
        console.print_note(
            "pictures of another shape than the net takes are squashed; cropped to their objects, they may "
            "be classified better"
        )
    # Width first, then height, as the page of an export does (export/web/picture.js). Pillow 13 begins with
    # the height of tall images, which rounds differently.
    image = image.convert("RGB").resize((width, image.height), PIL.Image.Resampling.BICUBIC)
    return np.asarray(image.resize((width, height), PIL.Image.Resampling.BICUBIC))
