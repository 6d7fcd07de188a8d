"""`Classifier`, which also opens the trained nets that come with the package, by name.

classifier = keras_resnet.Classifier.load("resnet20")
probabilities = classifier.predict("ship.png")
"""

from __future__ import annotations

import os
from typing import Self

from keras_resnet.inference import classifier
from keras_resnet.zoo import registry


class Classifier(classifier.Classifier):
    """`keras_resnet.inference.classifier.Classifier`, loaded by name or path."""

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """Open a net of the zoo, a `.keras` file, a run folder, a SavedModel folder or an `.onnx` file.

        Args:
            path: a name that `keras_resnet.zoo.list()` has, or a path; a file or a folder of that name
                in the working directory comes first. Default: the ResNet-20 of the zoo.

        The names of the classes are ONNX metadata (`names`), else those of `labels.txt` or a run's
        `config.json` beside the model. ONNX runs on the CPU. A SavedModel is a TensorFlow program:
        open only those you trust.

        Raises:
            UserError: if it is missing, damaged or not a net of this package.
        """
        return super().load(registry.resolve(path))
