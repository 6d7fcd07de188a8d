"""Data sets, the split, and properties of the stream of batches."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from keras_resnet.data import cifar, datasets, stream, synthetic
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError


def test_a_recorded_data_folder_counts_only_where_it_is(tmp_path, monkeypatch) -> None:
    """The user's word first; then the folder of the machine that trained, which may not be here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    home = tmp_path / "tensorflow_datasets"
    assert datasets.folder_of("cifar10") == home
    assert datasets.folder_of("cifar10", recorded="/nowhere") == home
    (tmp_path / "tfds/cifar10/3.0.2").mkdir(parents=True)
    assert datasets.folder_of("cifar10", recorded="~/tfds") == home  # a download was given up
    (tmp_path / "tfds/cifar10/3.0.2/dataset_info.json").touch()
    assert datasets.folder_of("cifar10", recorded="~/tfds") == tmp_path / "tfds"
    assert datasets.folder_of("cifar100", recorded="~/tfds") == home
    assert datasets.folder_of("cifar10", "~/mine", recorded="~/tfds") == tmp_path / "mine"
    monkeypatch.setenv("TFDS_DATA_DIR", "/data")
    assert datasets.folder_of("cifar10", recorded="~/tfds") == tmp_path / "tfds"
    assert datasets.folder_of("cifar100", recorded="~/tfds") == Path("/data")


@pytest.mark.parametrize("val_size", [0, 1, 300])
def test_the_split_is_a_partition_by_seed(val_size: int) -> None:
    train, validation = stream.split(1000, val_size, 3)
    assert len(validation) == val_size
    assert sorted([*train, *validation]) == list(range(1000))
    np.testing.assert_array_equal(stream.split(1000, val_size, 3)[0], train)
    assert not val_size or not np.array_equal(stream.split(1000, val_size, 4)[1], validation)
    with pytest.raises(UserError, match="`val_size` must be"):
        stream.split(1000, 1000 + val_size, 0)


@pytest.mark.parametrize("batch_size", [1, 7, 100, 250])
def test_stream_is_one_permutation_after_another(batch_size: int) -> None:
    size, seed = 100, 5
    steps = 5 * size // batch_size + 1
    order = np.concatenate([stream.batch_indices(seed, k, size, batch_size) for k in range(steps)])
    epochs = [order[k : k + size] for k in range(0, 5 * size, size)]
    for epoch in epochs:  # every image once
        assert sorted(epoch) == list(range(size))
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_stream_is_a_function_of_seed_and_step() -> None:
    rng = np.random.default_rng(0)
    forward = [stream.batch_indices(1, k, 90, 40) for k in range(30)]
    for k in rng.permutation(30):
        np.testing.assert_array_equal(stream.batch_indices(1, int(k), 90, 40), forward[k])
    assert not np.array_equal(stream.batch_indices(2, 0, 90, 40), forward[0])


def test_synthetic_is_drawn_from_a_seed() -> None:
    a, b, c = (synthetic.synthetic((300, 100), seed) for seed in (0, 0, 1))
    assert a.train_images.shape == (300, 32, 32, 3) and a.train_images.dtype == np.uint8
    assert a.test_images.shape == (100, 32, 32, 3) and a.train_labels.dtype == np.int32
    np.testing.assert_array_equal(a.train_images, b.train_images)
    assert not np.array_equal(a.train_images, c.train_images)
    assert set(a.train_labels) == set(range(10)) and len(a.class_names) == 10


def test_synthetic_is_too_hard_for_a_linear_classifier() -> None:
    """Softmax regression on all pixels: under 50 % (chance: 10 %). ResNet-20 passes 90 %."""
    import keras

    data = synthetic.synthetic((20_000, 2_000))
    pixels = data.train_images.reshape(-1, 3)
    np.testing.assert_allclose(pixels.mean(axis=0), data.mean, atol=1.5)
    np.testing.assert_allclose(pixels.std(axis=0), data.std, atol=1.5)
    x, x_test = (i.reshape(len(i), -1).astype("float32") / 127.5 - 1
                 for i in (data.train_images, data.test_images))  # fmt: skip
    model = keras.Sequential([keras.Input((3072,)), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(x, data.train_labels, batch_size=256, epochs=6, verbose=0)
    assert model.evaluate(x_test, data.test_labels, verbose=0)[1] < 0.5


def test_real_cifar10(cifar10: Dataset) -> None:
    assert cifar10.train_images.shape == (50_000, 32, 32, 3)
    assert cifar10.test_images.shape == (10_000, 32, 32, 3)
    assert cifar10.class_names[3] == "cat"
    np.testing.assert_array_equal(np.bincount(cifar10.train_labels), 5_000)
    np.testing.assert_array_equal(np.bincount(cifar10.test_labels), 1_000)
    pixels = cifar10.train_images.reshape(-1, 3)
    np.testing.assert_allclose(pixels.mean(axis=0), cifar10.mean, atol=1e-3)
    np.testing.assert_allclose([pixels[:, c].std() for c in range(3)], cifar10.std, atol=1e-3)


@pytest.fixture
def toronto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """CIFAR-100's files as Toronto ships them, of 30 random training and 10 test images, to download."""
    import tensorflow_datasets as tfds

    folder = tmp_path / "download/cifar-100-binary"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    rows = [bytes([k % 20, k % 100]) + pixels[k].tobytes() for k in range(40)]
    (folder / "train.bin").write_bytes(b"".join(rows[:30]))
    (folder / "test.bin").write_bytes(b"".join(rows[30:]))
    for name, count in (("fine", 100), ("coarse", 20)):
        (folder / f"{name}_label_names.txt").write_text(
            "".join(f"{name}{k}\n" for k in range(count))
        )
    monkeypatch.setattr(
        tfds.download.DownloadManager, "download_and_extract", lambda *_: folder.parent
    )
    monkeypatch.setattr(cifar, "_is_reachable", lambda url: True)
    return pixels.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("tensorflow", [True, False])
def test_what_tfds_downloads_is_read_with_and_without_tensorflow(
    tensorflow: bool, toronto: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not tensorflow:  # then tfds writes array_record files
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    elif importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow, which writes TFRecord files, is not installed")
    data = datasets.load("cifar100", str(tmp_path / "tfds"))
    kind = "tfrecord" if tensorflow else "array_record"
    assert list((tmp_path / "tfds").rglob(f"*{kind}*"))
    assert data.class_names[:2] == ("fine0", "fine1") and len(data.class_names) == 100
    # tfds shuffles the images when it writes them; here each has a label of its own.
    assert sorted(data.train_labels) == list(range(30)) and data.train_labels.dtype == np.int32
    np.testing.assert_array_equal(data.train_images, toronto[data.train_labels])
    np.testing.assert_array_equal(data.test_images, toronto[data.test_labels])


@pytest.mark.parametrize("fault", ["length", "record", "empty", "no file"])
def test_a_damaged_file_ends_in_one_line(
    fault: str, toronto: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow", reason="it writes the TFRecord files")
    datasets.load("cifar100", str(tmp_path))
    file = next(tmp_path.rglob("*-train.tfrecord*"))
    content = bytearray(file.read_bytes())
    content[1 if fault == "length" else 200] ^= 4
    file.write_bytes(b"" if fault == "empty" else content)
    if fault == "no file":
        file.unlink()
    reason = {"empty": "the files of train hold 0 of its 30 images", "no file": "No such file"}
    with pytest.raises(UserError) as error:
        datasets.load("cifar100", str(tmp_path))
    message = str(error.value)
    assert reason.get(fault, f"{file.name} is damaged") in message and "\n" not in message
    assert message.startswith("cifar100 could not be read") and "or delete it to have it" in message


@pytest.mark.parametrize(
    ("name", "change", "received"),
    [
        ("train_images", lambda a: a / np.float32(255), r"float32 .*; \(255 \* images\)"),
        ("test_images", lambda a: a[0], r"uint8 \(8, 8, 3\)"),
        ("test_images", lambda a: a[:, 1:], r"the same size. Received: uint8 \(2, 7, 8, 3\)"),
        ("test_images", lambda a: a[:0], r"N of 1 or more.*uint8 \(0, 8, 8, 3\)"),
        ("train_labels", lambda a: a[:3], r"integer array \(4,\).*int64 \(3,\)"),
        ("train_labels", lambda a: a.astype(bool), r"bool \(4,\)"),
        ("test_labels", lambda a: a + 1, r"of 0 to 1: .*from 1 to 2"),
        ("test_labels", lambda a: a - 1, r"from -1 to 0"),
    ],
)
def test_a_dataset_checks_its_arrays(name, change, received) -> None:
    images, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 1, 0])
    parts = {"train_images": images, "train_labels": labels}
    parts |= {"test_images": images[:2], "test_labels": labels[:2]}
    Dataset("synthetic", ("a", "b"), **parts)
    parts[name] = change(parts[name])
    with pytest.raises(ValueError, match=f"`{name}` must be .*{received}"):
        Dataset("synthetic", ("a", "b"), **parts)


def test_missing_data_names_the_folder_and_the_ways_out(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no network, wherever this test runs
    with pytest.raises(UserError) as error:
        datasets.load("cifar10", str(tmp_path / "nowhere"))
    for part in (str(tmp_path / "nowhere"), "`data_dir`", "TFDS_DATA_DIR", "`dataset` synthetic"):
        assert part in str(error.value)
