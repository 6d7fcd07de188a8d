"""Use a trained net, whatever its format: `.keras`, SavedModel and ONNX behave the same.

classifier = Classifier.load("resnet20")                        # or a path
probabilities = classifier.predict(["cat.png", "dog.jpg"])      # float32 (2, 10)
classifier.class_names[probabilities[0].argmax()]               # "cat"
"""

import ast
import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL.Image

from keras_resnet import console
from keras_resnet.console import printable
from keras_resnet.data.images import images_per_chunk, read_image
from keras_resnet.errors import UserError
from keras_resnet.inference.open import OpenedNet, Shapes, names_beside, one_line, open_net

MAX_INPUT_SIDE = 4096  # pixels of a net's input, so that no file makes us reserve gigabytes


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained net that classifies images, loaded by `Classifier.load`.

    Attributes:
        path: what it was read from.
        format: `"keras"`, `"saved_model"` or `"onnx"`.
        image_size: (height, width).
        class_names: in the order of the probabilities; `class 0`, ... where nothing names them.
        run: from uint8 `(N, height, width, 3)` to probabilities or logits `(N, classes)`.
        output_name: of the net; under the name `probabilities` it must return probabilities.
    """

    path: Path
    format: str
    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    run: Callable[[np.ndarray], Any] = dataclasses.field(repr=False)
    output_name: str = "probabilities"

    @classmethod
    def load(cls, model: str | os.PathLike[str] | None = None) -> Self:
        """Open a net by its name, a `.keras` file, a run folder, a SavedModel folder or an `.onnx` file.

        Args:
            model: the name of a trained net that `keras_resnet.zoo.list()` has, or a path; a file or a
                folder of that name in the working directory comes first. Default: the trained ResNet-20.

        The names of the classes are ONNX metadata (`names`), else those of `labels.txt` or a run's
        `config.json` beside the model. ONNX runs on the CPU. A SavedModel is a TensorFlow program:
        open only those you trust.

        Raises:
            UserError: if it is missing, damaged or not a classifier of RGB images.
        """
        net = open_net(model)
        target, image_size, classes = classifier_of(net.path, net.inputs, net.outputs)

        def run(images: np.ndarray) -> Any:
            try:
                return net.run(images)[target]
            except Exception as error:  # each format raises others, of dtypes and fixed shapes
                raise UserError(
                    f"{net.path} could not run {len(images)} uint8 images: {one_line(error)}"
                ) from None

        return cls(net.path, net.format, image_size, _names(net, classes), run, target)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 `(N, classes)`, of uint8 images `(N, height, width, 3)`; else ValueError."""
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape[1:] != (*self.image_size, 3):
            raise ValueError(
                f"`images` must be uint8 (N, {self.image_size[0]}, {self.image_size[1]}, 3). Received: "
                f"{images.dtype} {images.shape}"
            )
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
        if hasattr(images, "__array__") and not isinstance(images, PIL.Image.Image):
            images = np.asarray(images)
            images = images if images.ndim == 4 else [images]
        elif isinstance(images, str) or hasattr(images, "read") or not isinstance(images, Iterable):
            images = [images]  # a path or an open file
        iterator, results = iter(images), [np.empty((0, len(self.class_names)), np.float32)]
        while part := [*itertools.islice(iterator, self.chunk)]:
            results.append(self(np.stack([read_image(x, self.image_size) for x in part])))
        return np.concatenate(results)


def classifier_of(path: Path, inputs: Shapes, outputs: Shapes) -> tuple[str, tuple[int, int], int]:
    """The output, image size and number of classes of a net; UserError where it classifies no RGB images."""
    targets = [name for name, shape in outputs.items() if len(shape) == 2]
    targets = ["probabilities"] if "probabilities" in targets else targets
    match [*inputs.values()], [outputs[name] for name in targets]:
        case [(None, int(height), int(width), 3)], [(_, int(classes))] if (
            classes > 1 and max(height, width) <= MAX_INPUT_SIDE
        ):
            return targets[0], (height, width), classes
    received = " -> ".join(
        ", ".join(str(tuple(shape)) for shape in shapes.values())[:100] or "none"
        for shapes in (inputs, outputs)
    )
    raise UserError(
        f"{path} must take RGB images (N, height, width, 3), N not fixed, at most {MAX_INPUT_SIDE} pixels "
        f"per side, and return probabilities or logits (N, classes). Received: {received}"
    )


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


def to_probabilities(outputs: Any, count: int, source: str, output_name: str) -> np.ndarray:
    """What the net `source` returned for `count` images, as probabilities, float32 `(count, classes)`.

    An output that is named `probabilities` must hold some. Any other may hold logits: a softmax is
    applied, and a note says so once. Raises UserError for another shape, or values that are not finite.
    """
    try:
        values = np.asarray(outputs, np.float32)
    except (TypeError, ValueError):  # a dict or list of several outputs
        values = np.empty(0, np.float32)
    if values.ndim != 2 or len(values) != count or values.shape[1] < 2:
        raise UserError(
            f"{source} must return probabilities or logits ({count}, classes). Received: "
            f"{type(outputs).__name__} {values.shape}"
        )
    if not np.isfinite(values).all():
        raise UserError(
            f"{source} returns numbers that are not finite: it is damaged, or its training diverged"
        )
    # int8 files round each probability to a 256th.
    rounding = min(0.5, max(1e-3, values.shape[1] / 512))
    if (values >= 0).all() and (abs(values.sum(axis=1) - 1) < rounding).all():
        return values
    if output_name == "probabilities":
        raise UserError(
            f"{source} must return probabilities, as its output is named. Received: numbers from "
            f"{values.min():.3g} to {values.max():.3g}"
        )
    console.print_note(f"{source} returns logits; a softmax makes them probabilities")
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
