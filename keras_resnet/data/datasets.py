"""Which data set is read from where."""

from __future__ import annotations

import os
from pathlib import Path

from keras_resnet.data import cifar, synthetic
from keras_resnet.data.constants import NORMALIZATION
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError


def folder_of(name: str, data_dir: str | None = None, recorded: str | None = None) -> Path:
    """The folder of tensorflow_datasets in which a data set is looked for.

    Args:
        name: the data set.
        data_dir: the folder the user names; it is taken.
        recorded: the folder that a run names: of the machine that trained it, so it counts only where
            it holds the data set. The default is `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
    """
    if data_dir:
        return _expanded(data_dir)
    if recorded and is_in(_expanded(recorded), name):
        return _expanded(recorded)
    return _expanded(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def is_in(folder: Path, name: str) -> bool:
    """Whether a folder of tensorflow_datasets holds a data set, so that `load` downloads nothing."""
    return any((folder / name).glob("*/dataset_info.json"))


def _expanded(path: str) -> Path:
    """`~` as the home folder. Unlike pathlib's, it leaves an unknown user's as it is."""
    return Path(os.path.expanduser(path))


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Read a data set into memory.

    Args:
        name: `"cifar10"`, `"cifar100"` or `"synthetic"`.
        data_dir: folder of tensorflow_datasets; default `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
            A data set that is not there is downloaded to it.

    Raises:
        UserError: for an unknown name, or when the data set is not there and cannot be downloaded.
    """
    if name == "synthetic":
        return synthetic.synthetic()
    if name not in NORMALIZATION:
        raise UserError(f"`dataset` must be one of {', '.join(NORMALIZATION)}. Received: {name!r}")
    return cifar.read(name, folder_of(name, data_dir))
