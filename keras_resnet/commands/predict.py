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
from keras_resnet.commands.flags import add_model_flag
from keras_resnet.console import printable
from keras_resnet.errors import UserError
from keras_resnet.inference.classifier import Classifier
from keras_resnet.inference.images import read_image
from keras_resnet.zoo import registry

SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
)  # fmt: skip
# Images of kinds that are not read: a folder that holds some says so.
OTHER_SUFFIXES = (".avif", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".psd", ".svg", ".tga")


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        prog="keras-resnet predict",
        description=__doc__,
        formatter_class=flags.HelpFormatter,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file or folder of images")
    add_model_flag(parser)
    parser.add_argument(
        "--top-k", type=int, default=3, metavar="K", help="classes per image (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args(argv)
    if arguments.top_k < 1:
        raise UserError(f"--top-k must be 1 or more. Received: {arguments.top_k}")
    model = registry.resolve(arguments.model)
    errors: list[dict[str, str]] = []

    def failed(path: str, message: str) -> None:
        errors.append({"path": path, "message": message})
        console.print_error(f"error: {' '.join(printable(message).split())}")

    if not any(map(os.path.exists, arguments.images)) and not arguments.json:
        list(_readable(arguments.images, (32, 32), failed))  # it says so of each
        return 1  # before the net is loaded, which takes seconds
    console.print_status("loading the net")
    startup.start_keras()
    classifier = Classifier.load(model)

    done = []
    for path, probabilities in _predictions(classifier, arguments.images, failed):
        best = np.argsort(-probabilities, kind="stable")[: arguments.top_k]
        classes = [(int(k), classifier.class_names[k], float(probabilities[k])) for k in best]
        if arguments.json:
            keys = ("class_id", "class_name", "probability")
            done.append(
                {"path": path, "predictions": [dict(zip(keys, c, strict=True)) for c in classes]}
            )
        else:
            text = ", ".join(f"{name} {100 * p:.2f} %" for _, name, p in classes)
            console.print_result(f"{printable(path)}: {text}")
    if arguments.json:
        console.print_result(
            json.dumps({"model": str(classifier.path), "images": done, "errors": errors}, indent=2)
        )
    return 1 if errors else 0


def _predictions(
    classifier: Classifier, sources: Sequence[str], failed: Callable[[str, str], None]
) -> Iterator[tuple[str, np.ndarray]]:
    """Paths of readable images with their probabilities; the others go to `failed`."""
    images = _readable(sources, classifier.image_size, failed)
    while chunk := list(itertools.islice(images, classifier.chunk)):
        paths, pixels = zip(*chunk, strict=True)
        yield from zip(paths, classifier.predict(np.stack(pixels)), strict=True)


def _readable(
    sources: Sequence[str], size: tuple[int, int], failed: Callable[[str, str], None]
) -> Iterator[tuple[str, np.ndarray]]:
    """Paths of readable images with their pixels; the others go to `failed`."""
    for path in _files(sources, failed):
        try:
            yield path, read_image(path, size)
        except UserError as error:
            failed(path, str(error))


def _files(sources: Sequence[str], failed: Callable[[str, str], None]) -> Iterator[str]:
    """The images that files and folders name; folders without one go to `failed`."""

    found = False

    def unreadable(error: OSError) -> None:
        nonlocal found
        found = True  # said already
        failed(str(error.filename), f"folder {error.filename} could not be read: {error.strerror}")

    for source in sources:
        if not os.path.isdir(source):
            yield source
            continue
        found = False
        others: list[str] = []
        for folder, subfolders, names in os.walk(source, onerror=unreadable):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                    found = True
                    yield os.path.join(folder, name)
                elif name.lower().endswith(OTHER_SUFFIXES):
                    others.append(os.path.join(folder, name))
        if others:
            console.print_error(
                f"note: {source}: passed over {len(others)} files that are not read, e.g. "
                f"{printable(others[0])}; convert them to PNG"
            )
        if not found:
            failed(source, f"folder {source} holds no image ({' '.join(SUFFIXES)})")
