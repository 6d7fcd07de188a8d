"""Use a trained net, whatever its format: `.keras`, SavedModel and ONNX behave the same.

classifier = Classifier.load("resnet20")                        # or a path
probabilities = classifier.predict(["cat.png", "dog.jpg"])      # float32 (2, 10)
classifier.class_names[probabilities[0].argmax()]               # "cat"
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import PIL.Image

from keras_resnet.data.images import checked, images_per_chunk, read_image
from keras_resnet.inference.open import OpenedNet, open_net


@dataclasses.dataclass(frozen=True)
class Classifier(OpenedNet):
    """A trained net that classifies images, loaded by `Classifier.load`."""

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
            UserError: if it is missing, damaged or no classifier of RGB images.
        """
        return cls(**vars(open_net(model)))

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
            ValueError: for an array of another shape or dtype, or an unfit PIL image.
            UserError: for a file that is missing or no readable image; the message names it.
        """
        results = [self(chunk) for chunk in self._chunks(images)]
        return np.concatenate(results or [np.empty((0, len(self.class_names)), np.float32)])

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
