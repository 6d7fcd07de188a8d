"""Classify images with a trained net.

    keras-resnet predict cat.png photos/
    keras-resnet predict --model resnet20 cat.png
    keras-resnet predict --model experiments/resnet56/seed-0 cat.png

One line per image: the most probable classes. Folders are walked, sorted, without hidden files.
What cannot be read gets a line on stderr, the others are still done, and the exit code is 1.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.console import printable
from keras_resnet.data.images import read_image
from keras_resnet.errors import UserError
from keras_resnet.inference import zoo
from keras_resnet.inference.classifier import Classifier

SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
)  # fmt: skip
# Images of formats that are not read: a folder that holds some says so.
OTHER_SUFFIXES = (".avif", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".psd", ".svg", ".tga")
Failed = Callable[[str, str], None]  # called with the path and the reason


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        prog="keras-resnet predict", description=__doc__, formatter_class=flags.HelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file or folder of images")
    flags.add_model_flag(parser)
    parser.add_argument(
        "--top-k", type=int, default=3, metavar="K", help="classes per image (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args(argv)
    if arguments.top_k < 1:
        raise UserError(f"--top-k must be 1 or more. Received: {arguments.top_k}")
    model = zoo.resolve(arguments.model)
    errors: list[dict[str, str]] = []

    def failed(path: str, message: str) -> None:
        errors.append({"path": path, "message": message})
        console.print_error(f"error: {' '.join(printable(message).split())}")

    if not any(map(os.path.exists, arguments.images)) and not arguments.json:
        for _ in _readable(arguments.images, (32, 32), failed):
            pass  # prints an error for each
        return 1  # before the net is loaded, which takes seconds
    console.print_status("loading the net")
    startup.start_keras()
    classifier = Classifier.load(model)

    results = []
    images = _readable(arguments.images, classifier.image_size, failed)
    while chunk := [*itertools.islice(images, classifier.chunk)]:
        paths, pixels = zip(*chunk, strict=True)
        for path, row in zip(paths, classifier.predict(np.stack(pixels)), strict=True):
            best = np.argsort(-row, kind="stable")[: arguments.top_k]
            predictions = [
                {"class_id": int(k), "class_name": classifier.class_names[k], "probability": float(row[k])}
                for k in best
            ]  # fmt: skip
            results.append({"path": path, "predictions": predictions})
            if not arguments.json:
                classes = [f"{classifier.class_names[k]} {100 * row[k]:.2f} %" for k in best]
                console.print_result(f"{printable(path)}: {', '.join(classes)}")
    if arguments.json:
        report = {"model": str(classifier.path), "images": results, "errors": errors}
        console.print_result(json.dumps(report, indent=2))
    return 1 if errors else 0


def _readable(
    sources: Sequence[str], size: tuple[int, int], failed: Failed
) -> Iterator[tuple[str, np.ndarray]]:
    """Paths of readable images with their pixels; the others go to `failed`."""
    for source in sources:
        for path in _images_in(source, failed) if os.path.isdir(source) else [source]:
            try:
                yield path, read_image(path, size)
            except UserError as error:
                failed(path, str(error))


def _images_in(source: str, failed: Failed) -> Iterator[str]:
    """The images in a folder and its subfolders; a folder without any goes to `failed`."""
    images, others, unreadable = 0, [], 0

    def on_error(error: OSError) -> None:
        nonlocal unreadable
        unreadable += 1
        failed(str(error.filename), f"folder {error.filename} could not be read: {error.strerror}")

    for folder, subfolders, names in os.walk(source, onerror=on_error):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                images += 1
                yield os.path.join(folder, name)
            elif name.lower().endswith(OTHER_SUFFIXES):
                others.append(os.path.join(folder, name))
    if others:
        console.print_error(
            f"note: {source}: passed over {len(others)} files that are not read, e.g. "
            f"{printable(others[0])}; convert them to PNG"
        )
    if not images and not unreadable:
        failed(source, f"folder {source} holds no image ({' '.join(SUFFIXES)})")
