"""CIFAR-10 and CIFAR-100 from a folder of tensorflow_datasets, read without TensorFlow."""

import importlib.util
import io
import logging
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from PIL import Image

from keras_resnet import console
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError


def read(name: str, folder: Path) -> Dataset:
    """Read `"cifar10"` or `"cifar100"`, after a download if needed. Raises UserError where neither works."""
    import tensorflow_datasets as tfds  # slow to import, and not needed for synthetic data

    logging.getLogger("absl").setLevel(logging.ERROR)  # tfds warns of each folder it looks into
    failed = "read"
    advice = f"make {folder / name} readable, or delete it to have it downloaded; or "
    try:
        builder = tfds.builder(name, data_dir=str(folder))
        if not builder.is_prepared():
            failed, advice = "downloaded", ""
            if not _is_reachable(builder.info.homepage):
                raise ConnectionError("no network")
            console.print_line(f"{name} is not in {folder}: downloading it ...")
            # The default format of tfds needs TensorFlow to be written.
            file_format = None if importlib.util.find_spec("tensorflow") else "array_record"
            builder.download_and_prepare(file_format=file_format)
        train, test = _read_split(builder, "train"), _read_split(builder, "test")
        return Dataset(name, tuple(builder.info.features["label"].names), *train, *test)
    except Exception as error:  # tfds and its downloader raise many kinds
        reason = console.printable(f"{type(error).__name__}: {error}")[:200]
        raise UserError(
            f"{name} could not be {failed}, folder {folder} ({reason}): {advice}name the folder that "
            f"holds {name}/ with `data_dir` or TFDS_DATA_DIR; training also takes `dataset` synthetic"
        ) from None


def _read_split(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `(N, 32, 32, 3)` and labels int32 `(N,)`, in the order of the files."""
    info = builder.info.splits[split]
    images = np.empty((info.num_examples, 32, 32, 3), np.uint8)
    labels = np.empty(info.num_examples, np.int32)
    if builder.info.file_format.value == "tfrecord":
        records = (record for path in info.filepaths for record in _tfrecords(Path(path)))
        examples: Iterable[tuple[np.ndarray, int]] = map(_decode, records)
    else:  # a format that tfds reads without TensorFlow
        examples = ((e["image"], e["label"]) for e in builder.as_data_source(split))
    count = 0
    for image, label in examples:
        images[count], labels[count] = image, label
        count += 1
    if count != len(labels):
        raise ValueError(f"the files of {split} hold {count:,} of its {len(labels):,} images")
    return images, labels


def _tfrecords(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file, each checked; tfds needs TensorFlow to read such files.

    Each is its length (8 bytes), the length's checksum (4), the record, its checksum (4).
    """

    def checksum(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")

    with open(path, "rb") as file:
        while head := file.read(12):
            length = int.from_bytes(head[:8], "little")
            record = b""
            if checksum(head[:8]) == head[8:]:
                record = file.read(length)
            if not record or checksum(record) != file.read(4):
                raise ValueError(f"{path.name} is damaged")
            yield record


def _decode(record: bytes) -> tuple[np.ndarray, int]:
    from tensorflow_datasets.proto import tf_example_pb2

    features = tf_example_pb2.Example.FromString(record).features.feature
    with Image.open(io.BytesIO(features["image"].bytes_list.value[0]), formats=["PNG"]) as image:
        return np.asarray(image), features["label"].int64_list.value[0]


def _is_reachable(url: str) -> bool:
    """Whether there is a network: one request, because tfds retries for minutes where there is none."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except OSError as error:
        return isinstance(error, urllib.error.HTTPError)
    return True
