"""Use a trained net, whatever its format: `.keras`, SavedModel and ONNX behave the same.

classifier = Classifier.load("resnet20")                        # or a path
probabilities = classifier.predict(["cat.png", "dog.jpg"])      # float32 (2, 10)
classifier.class_names[probabilities[0].argmax()]               # "cat"
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL.Image

from keras_resnet.console import printable
from keras_resnet.data.images import images_per_chunk, read_image
from keras_resnet.errors import UserError
from keras_resnet.inference.evaluate import to_probabilities
from keras_resnet.inference.open import OpenedNet, names_beside, open_net

MAX_SIDE = 4096  # pixels per side of a net's input, so that no file makes us reserve gigabytes


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained net that classifies images, loaded by `Classifier.load`.

    Attributes:
        path: what it was read from.
        format: `"keras"`, `"saved_model"` or `"onnx"`.
        image_size: (height, width).
        class_names: in the order of the probabilities; `class 0`, ... where nothing names them.
        run: from uint8 `(N, height, width, 3)` to probabilities or logits `(N, classes)`.
        output_name: of the net; one that is named `probabilities` must hold some.
    """

    path: Path
    format: str
    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    run: Callable[[np.ndarray], Any] = dataclasses.field(repr=False)
    output_name: str = "probabilities"

    @classmethod
    def load(cls, model: str | os.PathLike[str] | None = None) -> Self:
        """Open a net of the zoo, a `.keras` file, a run folder, a SavedModel folder or an `.onnx` file.

        Args:
            model: a name that `keras_resnet.zoo.list()` has, or a path; a file or a folder of that name
                in the working directory comes first. Default: the ResNet-20 of the zoo.

        The names of the classes are ONNX metadata (`names`), else those of `labels.txt` or a run's
        `config.json` beside the model. ONNX runs on the CPU. A SavedModel is a TensorFlow program:
        open only those you trust.

        Raises:
            UserError: if it is missing, damaged or not a classifier of RGB images.
        """
        net = open_net(model)
        targets = [name for name, shape in net.outputs.items() if len(shape) == 2]
        targets = ["probabilities"] if "probabilities" in targets else targets
        match [*net.inputs.items()], [net.outputs[name] for name in targets]:
            case [(source, (None, int(height), int(width), 3))], [(_, int(classes))] if (
                classes > 1 and max(height, width) <= MAX_SIDE
            ):
                names = _names(net, classes)
            case _:
                received = " -> ".join(
                    ", ".join(str(tuple(shape)) for shape in shapes.values())[:100] or "none"
                    for shapes in (net.inputs, net.outputs)
                )
                raise UserError(
                    f"{net.path} must take RGB images (N, height, width, 3), N not fixed, at most {MAX_SIDE} "
                    f"pixels per side, and return probabilities or logits (N, classes). Received: {received}"
                )

        def run(images: np.ndarray) -> Any:
            return net.run(images, source, targets[0])

        return cls(net.path, net.format, (height, width), names, run, targets[0])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 `(N, classes)`, of images, uint8 `(N, height, width, 3)`."""
        return to_probabilities(self.run(images), len(images), str(self.path), self.output_name)

    @property
    def chunk(self) -> int:
        """How many images are decoded and run at a time."""
        return images_per_chunk(*self.image_size)

    def predict(self, images: Any) -> np.ndarray:
        """Class probabilities, float32 `(N, classes)`, of N images.

        Args:
            images: a uint8 array `(height, width, 3)` or `(N, height, width, 3)` of RGB pixels
                0..255, a file path, a PIL image, or a list (any iterable) of single ones of these.
                `read_image` says how files and images of other sizes and modes are converted.

        `chunk` images at a time are decoded and run: an iterable of any length fits in memory.

        Raises:
            ValueError: for an array of another shape or dtype, or a PIL image that `read_image` refuses.
            UserError: for a file that is missing or not a readable image; the message names it.
        """
        results = [self(chunk) for chunk in self._chunks(images)]
        return np.concatenate(results or [np.empty((0, len(self.class_names)), np.float32)])

    def _chunks(self, images: Any) -> Iterator[np.ndarray]:
        if hasattr(images, "__array__") and not isinstance(images, PIL.Image.Image):
            images = np.asarray(images)
            images = images if images.ndim == 4 else [images]
        elif isinstance(images, str | PIL.Image.Image) or not isinstance(images, Iterable):
            images = [images]
        iterator = iter(images)
        while part := [*itertools.islice(iterator, self.chunk)]:
            yield np.stack([read_image(image, self.image_size) for image in part])


def _names(net: OpenedNet, classes: int) -> tuple[str, ...]:
    """Class names from the metadata of an ONNX file, else from the files beside the net, else numbers."""
    if net.names is None:
        return names_beside(net.path, classes) or tuple(f"class {k}" for k in range(classes))
    with contextlib.suppress(Exception):
        # `{0: 'airplane', 1: ...}`, the form that Ultralytics introduced.
        names = ast.literal_eval(net.names.strip())
        if len(names) == classes:
            return tuple(printable(names[k]) for k in range(classes))
    raise UserError(
        f"{net.path} must have metadata 'names' of its {classes} classes, {{0: name, 1: name, ...}}. "
        f"Received: {printable(net.names)[:60]}"
    )
