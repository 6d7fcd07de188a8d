"""The test images that a trained net classifies wrongly."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_resnet.data import datasets
from keras_resnet.errors import UserError
from keras_resnet.inference.classifier import Classifier
from keras_resnet.report.rows import Record

MAX_IMAGES = 45


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """The wrongly classified test images of which a net is surest, uint8 `(n, height, width, 3)`.

    A caption says what the net says and what the image is; `count` and `total` are those of the test set.
    """

    images: np.ndarray
    captions: list[str]
    count: int
    total: int


def find_mistakes(record: Record, data_dir: str | None) -> Mistakes:
    """Classify the test images with a run's saved net.

    Args:
        record: a finished run.
        data_dir: folder of tensorflow_datasets; default the run's own where it exists here, else
            `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`. Nothing is downloaded.

    Raises:
        UserError: where the net or the data is missing or damaged.
    """
    dataset, path = record.run.config.dataset, record.run.folder.model_path
    if not path.is_file():
        raise UserError(f"the best run's net is missing: {path} does not exist")
    folder = datasets.folder_of(dataset, data_dir, recorded=record.run.config.data_dir)
    if dataset != "synthetic" and not datasets.is_in(folder, dataset):
        raise UserError(
            f"{dataset} is not in {folder}: name the folder that holds it with --data-dir"
        )
    data = datasets.load(dataset, str(folder))
    probabilities = Classifier.load(path).predict(data.test_images)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != data.test_labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")[:MAX_IMAGES]]
    captions = [
        f"{data.class_names[predicted[k]]} {100 * confidence[k]:.0f}\u00a0%\n"
        f"is {data.class_names[data.test_labels[k]]}"
        for k in shown
    ]
    return Mistakes(data.test_images[shown], captions, len(wrong), len(data.test_labels))
