"""Which data set is read from where."""

import os
from pathlib import Path

from keras_resnet.data import cifar, synthetic
from keras_resnet.data.constants import DATASETS
from keras_resnet.data.dataset import Dataset


def folder_of(
    name: str,
    data_dir: str | None = None,
    recorded: str | None = None,
    asked: str | None = None,
) -> Path:
    """The folder in which a data set is looked for: `data_dir`, which the user names, wins.

    `recorded` is that of a run, which may come from another machine: it counts only where it holds the data
    set, and not for a path that the user has `asked` for. The default is `$TFDS_DATA_DIR`, else
    `~/tensorflow_datasets`; for your own images the working directory.
    """
    if asked and asked not in DATASETS:
        recorded = None
    if not data_dir and recorded and is_in(Path(os.path.expanduser(recorded)), name):
        data_dir = recorded
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = data_dir or (default if name in DATASETS else "")
    return Path(os.path.expanduser(folder))  # Path.expanduser raises for an unknown user


def is_in(folder: Path, name: str) -> bool:
    """Whether a folder holds a data set, so that `load` downloads nothing."""
    if name not in DATASETS:
        return (folder / name).exists()
    return any((folder / name).glob("*/dataset_info.json"))


def load(
    name: str,
    data_dir: str | None = None,
    image_size: int | None = None,
    unreadable: str = "refuse",
) -> Dataset:
    """Read a data set into memory: one of `DATASETS`, which is downloaded if needed, or your own images.

    `Dataset.from_folder` explains the path of your own images, and the last two arguments.
    """
    if name == "synthetic":
        return synthetic.synthetic()
    if name in DATASETS:
        return cifar.read(name, folder_of(name, data_dir))
    path = folder_of(name, data_dir) / os.path.expanduser(name)
    return Dataset.from_folder(path, image_size, unreadable)


def load_for_net(name: str, data_dir: str | None, size: tuple[int, int]) -> Dataset:
    """Read a data set for a net of this `size`: images of a folder are resized, unreadable ones left out."""
    return load(name, data_dir, None if name.endswith(".npz") else size[0], "skip")
