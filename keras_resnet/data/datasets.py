"""Which data set is read from where."""

from __future__ import annotations

import os
from pathlib import Path

from keras_resnet.data import cifar, synthetic
from keras_resnet.data.constants import DATASETS
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError


def folder_of(name: str, data_dir: str | None = None, recorded: str | None = None) -> Path:
    """The folder of tensorflow_datasets in which a data set is looked for.

    Args:
        name: the data set.
        data_dir: the folder that the user names: it is taken.
        recorded: the folder that a run names: of the machine that trained it, so it counts only where
            it holds the data set. The default is `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
    """
    if not data_dir and recorded and is_in(Path(os.path.expanduser(recorded)), name):
        data_dir = recorded
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(os.path.expanduser(folder))  # pathlib's own raises for an unknown user


def is_in(folder: Path, name: str) -> bool:
    """Whether a folder of tensorflow_datasets holds a data set, so that `load` downloads nothing."""
    return any((folder / name).glob("*/dataset_info.json"))


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Read a data set into memory.

    Args:
        name: `"cifar10"`, `"cifar100"` or `"synthetic"`.
        data_dir: folder of tensorflow_datasets; default `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
            A data set that is missing is downloaded to it.

    Raises:
        UserError: for an unknown name, or when the data set cannot be downloaded or read.
    """
    if name == "synthetic":
        return synthetic.synthetic()
    if name not in DATASETS:
        raise UserError(f"`dataset` must be one of {', '.join(DATASETS)}. Received: {name!r}")
    return cifar.read(name, folder_of(name, data_dir))
