"""Data sets, the split, and properties of the stream of batches."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from keras_resnet.data import cifar, datasets, stream, synthetic
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError


def test_a_recorded_data_folder_counts_only_where_it_is(tmp_path, monkeypatch):
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
def test_the_split_is_a_partition_by_seed(val_size):
    train, validation = stream.split(1000, val_size, 3)
    assert len(validation) == val_size
    assert sorted([*train, *validation]) == list(range(1000))
    np.testing.assert_array_equal(stream.split(1000, val_size, 3)[0], train)
    assert not val_size or not np.array_equal(stream.split(1000, val_size, 4)[1], validation)
    with pytest.raises(UserError, match="`val_size` must be"):
        stream.split(1000, 1000 + val_size, 0)


@pytest.mark.parametrize("batch_size", [1, 7, 100, 250])
def test_stream_is_one_permutation_after_another(batch_size):
    """Whatever the order in which the steps are asked for."""
    steps = range(5 * 100 // batch_size + 1)
    batches = {k: stream.batch_indices(5, k, 100, batch_size) for k in reversed(steps)}
    order = np.concatenate([batches[k] for k in steps])
    epochs = order[:500].reshape(5, 100)
    for epoch in epochs:  # every image once
        assert sorted(epoch) == list(range(100))
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert not np.array_equal(stream.batch_indices(6, 0, 100, batch_size), batches[0])


def test_synthetic_has_the_mean_colour_that_its_nets_take_off():
    data = synthetic.synthetic((10_000, 10))
    pixels = data.train_images.reshape(-1, 3)
    np.testing.assert_allclose(pixels.mean(axis=0), data.mean, atol=1.5)
    np.testing.assert_allclose(pixels.std(axis=0), data.std, atol=1.5)


def test_real_cifar10(cifar10):
    assert cifar10.train_images.shape == (50_000, 32, 32, 3)
    assert cifar10.test_images.shape == (10_000, 32, 32, 3)
    assert cifar10.class_names[3] == "cat"
    np.testing.assert_array_equal(np.bincount(cifar10.train_labels), 5_000)
    np.testing.assert_array_equal(np.bincount(cifar10.test_labels), 1_000)
    pixels = cifar10.train_images.reshape(-1, 3)
    np.testing.assert_allclose(pixels.mean(axis=0), cifar10.mean, atol=1e-3)
    np.testing.assert_allclose([pixels[:, c].std() for c in range(3)], cifar10.std, atol=1e-3)


@pytest.fixture
def toronto(tmp_path, monkeypatch):
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
        names = "".join(f"{name}{k}\n" for k in range(count))
        (folder / f"{name}_label_names.txt").write_text(names)
    manager = tfds.download.DownloadManager
    monkeypatch.setattr(manager, "download_and_extract", lambda *_: folder.parent)
    monkeypatch.setattr(cifar, "_is_reachable", lambda url: True)
    return pixels.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("tensorflow", [True, False])
def test_what_tfds_downloads_is_read_with_and_without_tensorflow(
    tensorflow, toronto, tmp_path, monkeypatch
):
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


def test_a_damaged_file_ends_in_one_line(toronto, tmp_path):
    pytest.importorskip("tensorflow", reason="it writes the TFRecord files")
    datasets.load("cifar100", str(tmp_path))
    file = next(tmp_path.rglob("*-train.tfrecord*"))
    whole = file.read_bytes()
    for content, reason in (
        (whole[:200] + bytes([whole[200] ^ 4]) + whole[201:], f"{file.name} is damaged"),
        (b"", "the files of train hold 0 of its 30 images"),
        (None, "No such file"),
    ):
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(UserError) as error:
            datasets.load("cifar100", str(tmp_path))
        message = str(error.value)
        assert message.startswith("cifar100 could not be read") and "\n" not in message
        assert reason in message and "or delete it to have it" in message


def test_a_dataset_checks_its_arrays():
    images, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 1, 0])
    parts = {"train_images": images, "train_labels": labels}
    parts |= {"test_images": images[:2], "test_labels": labels[:2]}
    Dataset("synthetic", ("a", "b"), **parts)
    for name, change, received in (
        ("train_images", lambda a: a / np.float32(255), r"float32 .*; \(255 \* images\)"),
        ("test_images", lambda a: a[:, 1:], r"of the same size .*\(2, 7, 8, 3\)"),
        ("test_images", lambda a: a[:0], r"at least one.*uint8 \(0, 8, 8, 3\)"),
        ("train_labels", lambda a: a[:3], r"integer array \(4,\).*int64 \(3,\)"),
        ("train_labels", lambda a: a.astype(bool), r"bool \(4,\)"),
        ("test_labels", lambda a: a + 1, r"of 0 to 1: .*from 1 to 2"),
    ):
        changed = {**parts, name: change(parts[name])}
        with pytest.raises(ValueError, match=f"`{name}` must be .*{received}"):
            Dataset("synthetic", ("a", "b"), **changed)


def test_missing_data_names_the_folder_and_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no network, wherever this test runs
    with pytest.raises(UserError) as error:
        datasets.load("cifar10", str(tmp_path / "nowhere"))
    for part in (str(tmp_path / "nowhere"), "`data_dir`", "TFDS_DATA_DIR", "`dataset` synthetic"):
        assert part in str(error.value)
