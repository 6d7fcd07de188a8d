"""Classify images with a trained net.

    keras-resnet predict cat.png photos/
    keras-resnet predict --model resnet20 cat.png
    keras-resnet predict --model experiments/resnet56/seed-0 cat.png
    curl -sL URL | keras-resnet predict -

One line per image: the most probable classes. Folders are walked, sorted,
without hidden files. An image that cannot be read gets a line on stderr; the
others are classified, and the exit code is 1.
"""

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.console import printable
from keras_resnet.data.images import find_images, read_image
from keras_resnet.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(prog="keras-resnet predict", description=__doc__)
    add = parser.add_argument
    # fmt: off
    add("images", nargs="+", metavar="IMAGE", help="image file, folder of images, or - for an image on stdin")
    flags.add_model_flag(parser)
    add("--top-k", type=int, default=3, metavar="K", help="classes per image (default: %(default)s)")
    add("--json", action="store_true", help="one JSON object on stdout")
    # fmt: on
    arguments = parser.parse_args(argv)
    if "-" in arguments.images and sys.stdin is None:
        raise UserError("- must have an image on stdin. Received: a closed stdin")
    if arguments.top_k < 1:
        raise UserError(f"--top-k must be 1 or more. Received: {arguments.top_k}")
    results, errors = [], []

    def report(path: str, message: str) -> None:
        errors.append({"path": path, "message": message})
        console.print_error(f"error: {' '.join(printable(message).split())}")

    if not arguments.json and not any(p == "-" or os.path.exists(p) for p in arguments.images):
        any(_read(arguments.images, (32, 32), report))  # before the net is loaded: it takes seconds
        return 1
    classifier = startup.load_classifier(arguments.model)
    images = _read(arguments.images, classifier.image_size, report)
    while chunk := [*itertools.islice(images, classifier.chunk)]:
        paths, pixels = zip(*chunk, strict=True)
        for path, row in zip(paths, classifier(np.stack(pixels)), strict=True):
            predictions = [
                {"class_id": int(k), "class_name": classifier.class_names[k], "probability": float(row[k])}
                for k in np.argsort(-row, kind="stable")[: arguments.top_k]
            ]  # fmt: skip
            results.append({"path": path, "predictions": predictions})
            if not arguments.json:
                texts = [f"{p['class_name']} {100 * p['probability']:.2f} %" for p in predictions]
                console.print_result(f"{printable(path)}: {', '.join(texts)}")
    if arguments.json:
        summary = {"model": str(classifier.path), "images": results, "errors": errors}
        console.print_result(json.dumps(summary, indent=2))
    return 1 if errors else 0


def _read(
    sources: Sequence[str], size: tuple[int, int], report: Callable[[str, str], None]
) -> Iterator[tuple[str, np.ndarray]]:
    """Paths of images with their pixels; `report` is called with what cannot be read, and why."""
    for source in sources:
        paths: Sequence[str | Path] = [source]
        if os.path.isdir(source):
            paths, problems = find_images(Path(source))
            for problem in problems:
                report(source, problem)
        for path in paths:
            try:
                yield str(path), read_image(sys.stdin.buffer if path == "-" else path, size)
            except UserError as error:
                report(str(path), str(error))
