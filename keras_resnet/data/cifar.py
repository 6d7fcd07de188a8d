"""CIFAR-10 and CIFAR-100 through tensorflow_datasets."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet import console
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError


def read(name: str, folder: Path) -> Dataset:
    """Read `"cifar10"` or `"cifar100"` from a folder of tensorflow_datasets, downloading it if it is missing.

    Raises:
        UserError: when it is not there and cannot be downloaded, or cannot be read.
    """
    import tensorflow_datasets as tfds  # slow to import, and not needed for synthetic data

    logging.getLogger("absl").setLevel(logging.ERROR)  # tfds warns of every folder it looks into
    network = True
    try:
        builder = tfds.builder(name, data_dir=str(folder))
        if not builder.is_prepared() and (network := _reachable(builder.info.homepage)):
            console.print_line(f"{name} is not in {folder}: downloading it ...")
            builder.download_and_prepare()
        # Files in their order, so that the same files give the same arrays.
        train, test = builder.as_dataset(
            split=["train", "test"], shuffle_files=False, as_supervised=True
        )
        (train_images, train_labels), (test_images, test_labels) = _arrays(train), _arrays(test)
    except Exception as error:  # tfds and its downloader raise many kinds
        reason = f"{type(error).__name__}: {error}"[:200] if network else "no network"
        raise UserError(
            f"{name} was not found in {folder} and could not be downloaded or read ({reason}). "
            f"Name the folder that holds {name}/ with `data_dir` or TFDS_DATA_DIR, "
            "or use `dataset` synthetic"
        ) from None
    return Dataset(
        name,
        tuple(builder.info.features["label"].names),
        train_images,
        train_labels.astype(np.int32),
        test_images,
        test_labels.astype(np.int32),
    )


def _reachable(url: str) -> bool:
    """Whether there is a network: one look, because tfds retries for minutes where there is none."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _arrays(examples: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a `tf.data.Dataset` of examples."""
    batches = list(examples.batch(1_000).as_numpy_iterator())
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)
