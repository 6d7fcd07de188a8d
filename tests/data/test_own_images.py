"""Your own images: what is read from folders and .npz files, what is refused, and docs/your-data.md."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from keras_resnet import Dataset
from keras_resnet.data import folders, stream
from keras_resnet.errors import UserError
from tests.helpers import REPOSITORY, call, python, train

CLASSES = ("disc", "square", "stripes")


def draw(folder, count, size=64, seed=0):
    """One subfolder per class with `count` noisy JPEGs, colours and places at random."""
    rng = np.random.default_rng(seed)
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True)
        for k in range(count):
            low = rng.permutation([20, 150])
            ground, color = (tuple(rng.integers(n, n + 90, 3)) for n in low)
            image = Image.new("RGB", (size, size), ground)
            pen = ImageDraw.Draw(image)
            x, y, r = (rng.uniform((0.3, 0.3, 0.16), (0.7, 0.7, 0.26)) * size).astype(int)
            for top in range(y - r, y + r, max(2, r // 2)) if kind == "stripes" else [y - r]:
                bottom = top + max(1, r // 5) if kind == "stripes" else y + r
                shape = pen.ellipse if kind == "disc" else pen.rectangle
                shape([x - r, top, x + r, bottom], fill=color)
            noise = rng.integers(-12, 13, (size, size, 3))
            noisy = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / kind / f"{k:03d}.jpg", quality=90)
    return folder


def test_a_folder_is_read_in_order_and_a_fifth_is_for_the_test(tmp_path):
    root = draw(tmp_path / "photos", 10, size=20)
    Image.new("L", (9, 30), 77).save(root / "disc/grey.PNG")
    (root / "disc/notes.txt").write_text("no image")
    shutil.copytree(root / "disc", root / "disc/.ipynb_checkpoints")
    shutil.copytree(root / "disc", root / "__MACOSX")
    data = Dataset.from_folder(root, image_size=16)
    assert data.class_names == CLASSES and data.name == "photos"
    assert data.train_images.shape == (25, 16, 16, 3) and data.test_images.shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(np.bincount(data.test_labels), [2, 2, 2])
    pixels = np.concatenate([data.train_images, data.test_images])
    assert sum((image == 77).all() for image in pixels) == 1
    flat = data.train_images.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(data.mean, flat.mean(axis=0))
    np.testing.assert_allclose(data.std, flat.std(axis=0))
    again = Dataset.from_folder(root, image_size=16)
    assert again.content_hash == data.content_hash
    Image.new("L", (9, 30), 78).save(root / "disc/grey.PNG")
    assert Dataset.from_folder(root, image_size=16).content_hash != data.content_hash


@pytest.mark.parametrize(
    ("parts", "counts"),
    [
        (("train", "test"), (13, 2, 6)),
        (("train", "val"), (13, 2, 6)),
        (("train", "val", "test"), (15, 6, 6)),
    ],
)
def test_the_parts_that_a_folder_has(parts, counts, tmp_path):
    for seed, part in enumerate(parts):
        draw(tmp_path / "photos" / part, 5 if part == "train" else 2, size=16, seed=seed)
    data = Dataset.from_folder(tmp_path / "photos", image_size=16)
    train, val = data.split(None if len(parts) == 3 else 2, 0)
    assert (len(train), len(val), len(data.test_labels)) == counts
    assert not data.split_note and set(data.train_labels[train]) == {0, 1, 2}
    assert len(data.split(None, 0)[1]) == (6 if len(parts) == 3 else 1)
    of_training = data.train_images[:15].reshape(-1, 3)
    np.testing.assert_allclose(data.mean, of_training.mean(axis=0))
    # No other part takes the place of one that cannot be read.
    for path in (tmp_path / "photos" / parts[-1]).rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=f"photos/{parts[-1]} must hold images that can be read"):
        Dataset.from_folder(tmp_path / "photos", unreadable="skip")


def test_a_stratified_split_gives_each_class_its_share():
    labels = np.repeat([0, 1, 2, 3], [600, 300, 99, 1])
    train, val = stream.stratified_split(labels, 100, seed=3)
    assert sorted([*train, *val]) == list(range(1000))
    assert np.abs(np.bincount(labels[val], minlength=4) - [60, 30, 10, 0]).max() <= 1
    np.testing.assert_array_equal(stream.stratified_split(labels, 100, seed=3)[1], val)
    assert not np.array_equal(stream.stratified_split(labels, 100, seed=4)[1], val)
    assert len(stream.stratified_split(labels, 996, seed=3)[0]) == 4
    assert set(labels[stream.stratified_split(labels, 996, seed=3)[0]]) == {0, 1, 2, 3}


def digits(**changes):
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 12), dtype=np.uint8)
    labels = np.arange(20) % 4
    arrays = {"x_train": images, "y_train": labels[:, None]}
    arrays |= {"x_test": images[:8], "y_test": labels[:8]}
    return {key: value for key, value in {**arrays, **changes}.items() if value is not None}


def test_an_npz_file_is_read_as_it_is(tmp_path):
    np.savez(tmp_path / "digits.npz", **digits(class_names=np.array(["a", "b", "c", "d"])))
    data = Dataset.from_folder(tmp_path / "digits.npz")
    assert data.class_names == ("a", "b", "c", "d") and data.train_images.shape == (20, 12, 12, 3)
    np.testing.assert_array_equal(data.train_images[..., 2], digits()["x_train"])
    np.testing.assert_array_equal(data.train_labels, np.arange(20) % 4)
    assert Dataset.from_arrays(*digits().values()).class_names == ("0", "1", "2", "3")


def only_one_class(root):
    for folder in root.glob("s*"):
        shutil.rmtree(folder)


def another_class(root):
    for name in CLASSES:
        shutil.rmtree(root / name)
    draw(root / "train", 1)
    draw(root / "test", 1)
    (root / "test/disc").rename(root / "test/cat")


@pytest.mark.parametrize(
    ("change", "flags", "told"),
    [
        (lambda root: (root / "disc/a.heic").touch(), [], "1 of 16 files .*a.heic: .*--unreadable skip"),
        (lambda root: (root / "void").mkdir(), [], "void holds no image"),
        (only_one_class, [], "two or more .*one class, disc"),
        (lambda root: root.rename(root.parent / "moved"), [], "one of cifar10, .*which is none of these"),
        (another_class, [], "cat must be one of the classes"),
        (Path.exists, ["--dataset", "/"], "--dataset must be a folder below /. Received: /"),
        (lambda root: draw(root / "Train", 1), [], "rename or move Train"),
        (lambda root: draw(root / "train", 1), [], "rename or move disc, square, stripes"),
        (Path.exists, ["--val-size", "12"], "--val-size must be .*below the 12"),
        (Path.exists, ["--image-size", "4096"], "15 images of 4096x4096 need 2.1 GiB .* 0.5 GiB are"),
        (Path.exists, ["--image-size", "1024", "--batch-size", "4"], "an update needs .* GiB are free"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_trained_on(change, flags, told, tmp_path, refused, monkeypatch):
    root = draw(tmp_path / "photos", 5, size=16)
    change(root)
    monkeypatch.setattr(folders, "free_memory", lambda: 2**29)
    error = refused("train", "--dataset", root, "--output-dir", tmp_path / "runs", *flags)
    assert re.search(told, error), error
    assert not (tmp_path / "runs").exists()


def test_an_npz_file_that_cannot_be_trained_on(tmp_path):
    for changes, told in (
        (
            {"y_train": np.full(20, 3)},
            "labelled from 0 on, .*training image.* without training images: .*'0', '1', '2'",
        ),
        ({"y_test": None}, "must hold x_train, .*Missing: y_test"),
        ({"y_train": np.arange(20) + 10**9}, "Received: 1000000019 as the largest of 20"),
        ({"class_names": np.array(["a", "a", "c", ""])}, "class names must differ"),
    ):
        np.savez(tmp_path / "digits.npz", **digits(**changes))
        with pytest.raises(UserError, match=told):
            Dataset.from_folder(tmp_path / "digits.npz")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "digits.npz").read_bytes()[:400])
    with pytest.raises(UserError, match="torn.npz could not be read"):
        Dataset.from_folder(tmp_path / "torn.npz")


def test_labels_of_one_byte_and_names_that_are_taken():
    images, labels = np.zeros((512, 8, 8, 3), np.uint8), np.arange(512).astype(np.uint8)
    assert len(Dataset.from_arrays(images, labels).class_names) == 256
    for name in ("cifar10", "a/b"):
        with pytest.raises(ValueError, match="`name` must have no slash and be none of cifar10"):
            Dataset.from_arrays(images, labels, name=name)
    with pytest.raises(ValueError, match="`test_labels` must come with `test_images`"):
        Dataset.from_arrays(images, labels, test_labels=labels)
    with pytest.raises(ValueError, match="`train_images` and labels must be arrays"):
        Dataset.from_arrays([images[0], images[1][:4]], labels[:2])


def test_unreadable_files_are_left_out_and_named(tmp_path, capsys):
    root = draw(tmp_path / "photos", 5, size=16)
    (root / "disc/empty.jpg").touch()
    data = Dataset.from_folder(root, unreadable="skip")
    assert len(data.train_labels) + len(data.test_labels) == 15
    assert re.search("warning: left out 1 of 16 files .*empty.jpg", capsys.readouterr().err)


def test_a_path_that_is_given_is_not_the_folder_of_the_run(tmp_path, monkeypatch, capsys):
    """Though it has the same name: `evaluate` and `train --config` read what the user names."""
    draw(tmp_path / "photos", 10, size=16)
    draw(tmp_path / "mine/photos", 5, size=16)
    sizes = ["--image-size=16", "--val-size=2"]
    assert train(tmp_path / "runs", *sizes, "--dataset", tmp_path / "photos") == 0
    monkeypatch.chdir(tmp_path / "mine")
    run = tmp_path / "runs/x/seed-0"
    for flags, images in (["--dataset=photos"], 3), ([], 6):
        capsys.readouterr()
        assert call("evaluate", "--model", run, *flags) == 0
        assert f"test split, {images} images" in capsys.readouterr().out
    assert call("train", "--config", run, "--dataset=photos", "--name=y") == 0
    assert "photos: 10 training, 2 validation and 3 test images" in capsys.readouterr().out


def test_runs_among_the_images_are_refused(tmp_path, monkeypatch, refused):
    """The next command would take them for a class."""
    root = draw(tmp_path / "photos", 5, size=16)
    monkeypatch.chdir(root)
    for command in ("train", "sweep"):
        error = refused(command, "--dataset=.")
        assert "--output-dir must be outside of the folder of the images" in error
    assert len(list(root.iterdir())) == 3


def test_a_resume_with_other_images_is_refused(tmp_path, capsys):
    root = draw(tmp_path / "photos", 10, size=16)
    flags = ["--image-size=16", "--val-size=2", "--augment=crop"]
    assert train(tmp_path / "runs", *flags, "--dataset", root) == 0
    assert "photos: 22 training, 2 validation and 6 test images" in capsys.readouterr().out
    results = tmp_path / "runs/x/seed-0/results.json"
    results.unlink()
    moved = tmp_path / "elsewhere/photos"
    moved.parent.mkdir()
    root.rename(moved)
    assert train(tmp_path / "runs", *flags, "--dataset", moved) == 0
    assert "is finished" not in capsys.readouterr().out
    assert train(tmp_path / "runs", *flags, "--dataset", moved) == 0
    assert "is finished" in capsys.readouterr().out
    (moved / "disc/000.jpg").unlink()
    for end in (lambda: None, results.unlink):  # a finished run, and an unfinished one
        end()
        assert train(tmp_path / "runs", *flags, "--dataset", moved) == 2
        assert "a run with other images" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_commands_and_the_python_of_the_page(tmp_path):
    """docs/your-data.md word for word: 3 classes of 100 drawn photos, 300 updates, above 95 %."""
    draw(tmp_path / "photos", 100)
    page = (REPOSITORY / "docs/your-data.md").read_text()
    commands = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)[0].splitlines()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    outputs = []
    for command in [*commands, program]:
        words = command.partition(" --serve")[0].split()[1:]  # it would serve until Ctrl-C
        own = ("-c", program) if command == program else ("-m", "keras_resnet", *words)
        done = python(*own, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        outputs.append(done.stdout)
    trained, evaluated, predicted, exported, by_int8, in_python = outputs
    assert float(re.search(r"test error ([\d.]+) %", trained)[1]) < 5
    assert float(re.search(r"error: +([\d.]+) %", evaluated)[1]) < 5
    assert "disc" in predicted and "stripes" in predicted
    assert float(re.search(r"int8\.onnx ([\d.]+) %", exported)[1]) < 5
    assert "square" in by_int8
    # This package does not know whose images they are.
    for file in ("MODEL_CARD.md", "web/README.md"):
        text = (tmp_path / "experiments/resnet8-photos-fast/seed-0/export" / file).read_text()
        assert text.startswith("---\n") and "license" not in text
    assert float(re.search(r"([\d.]+) % of 60 test images", in_python)[1]) < 5
