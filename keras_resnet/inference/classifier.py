"""Use a trained net, whatever its format: `.keras`, SavedModel and ONNX behave the same.

    classifier = Classifier.load("experiments/resnet20/seed-0/export/model.onnx")
    probabilities = classifier.predict(["cat.png", "dog.jpg"])      # float32 (2, 10)
    classifier.class_names[probabilities[0].argmax()]               # "cat"

What is imported late is slow to import, and not needed for every format.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL.Image

from keras_resnet.errors import UserError
from keras_resnet.inference.images import checked, read_image
from keras_resnet.inference.open import Run, open_net

CHUNK = 256  # images decoded and run at a time: bounds the memory, fast on CPU and GPU
CHUNK_PIXELS = CHUNK * 64 * 64  # and so many pixels at most, for nets of larger images


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A net of this package, loaded by `Classifier.load`.

    Attributes:
        path: what it was loaded from.
        format: `"keras"`, `"saved_model"` or `"onnx"`.
        class_names: in the order of the probabilities; `class 0`, ... where the model has none.
        image_size: (height, width) that the net takes.
    """

    path: Path
    format: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    _run: Run = dataclasses.field(repr=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Open a `.keras` file, a run folder, a SavedModel folder or an `.onnx` file.

        The names of the classes are ONNX metadata (`names`), else those of `labels.txt` or a run's
        `config.json` beside the model. ONNX runs on the CPU. A SavedModel is a TensorFlow program:
        open only those you trust.

        Raises:
            UserError: if it is missing, damaged or not a net of this package.
        """
        model = open_net(Path(path))
        assert model.names is not None
        size = model.shape[1], model.shape[2]
        assert size[0] is not None and size[1] is not None  # open_net has seen to it
        return cls(model.path, model.format, model.names, (size[0], size[1]), model.run)

    @property
    def chunk(self) -> int:
        """How many images are decoded and run at a time."""
        height, width = self.image_size
        return max(1, min(CHUNK, CHUNK_PIXELS // (height * width)))

    def predict(self, images: Any) -> np.ndarray:
        """Class probabilities, float32 `(N, classes)`, of N images.

        Args:
            images: a uint8 array `(height, width, 3)` or `(N, height, width, 3)` of RGB pixels
                0..255, a file path, a PIL image, or a list (any iterable) of single ones of these.
                `read_image` says how files and images of other sizes and modes are converted.

        `chunk` images at a time are decoded and run: an iterable of any length fits in memory.

        Raises:
            ValueError: for an array of another shape or dtype, or an unfit PIL image.
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
            array = checked(np.asarray(images), (3, 4))
            images = array if array.ndim == 4 else array[None]
            if images.shape[1:3] == self.image_size:
                for start in range(0, len(images), self.chunk):
                    yield np.ascontiguousarray(images[start : start + self.chunk])
                return
        iterator = iter(images if isinstance(images, Iterable) else [images])
        while part := [
            read_image(image, self.image_size) for image in itertools.islice(iterator, self.chunk)
        ]:
            yield np.stack(part)
