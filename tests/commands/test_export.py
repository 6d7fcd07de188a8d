"""export.py from outside: exit codes, one line per mistake, nothing half-written."""

import zipfile

import pytest

import keras_resnet
from tests.helpers import REPOSITORY, call, python


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """A folder of files that cannot be exported, and of good.keras."""
    folder = tmp_path_factory.mktemp("nets")
    good = folder / "good.keras"
    keras_resnet.resnet(8).save(good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(folder / "torn.keras", "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            archive.writestr(name, data[: len(data) // 2] if name.endswith("h5") else data)
    (folder / "unfinished").mkdir()
    (folder / "unfinished/config.json").write_text("{}")
    (folder / "file").write_text("")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        "nowhere",
        "torn.keras",
        "unfinished",
        # The tests may run as root, whom no permission stops: places that nobody can write to.
        "good.keras --output file/export",
        "good.keras --output /proc/export",
        "good.keras --output file",
        "good.keras --output a\udcff",  # Python's form of a byte that is not UTF-8
        "good.keras --opset 19",
        "good.keras --formats coreml",
        "good.keras --formats web --runtime .",
        "good.keras --serve",
        "good.keras --formats web --serve 65536",
        "good.keras --dataset imagenet",
    ],
)
def test_each_mistake_is_one_line(words, nets, monkeypatch, refused):
    monkeypatch.chdir(nets)
    before = sorted(nets.rglob("*"))
    refused("export", *words.split())
    assert sorted(nets.rglob("*")) == before


def test_the_real_command(tmp_path):
    """As a user runs it, from another folder."""
    keras_resnet.resnet(8).save(tmp_path / "net.keras")
    done = python(REPOSITORY / "export.py", "net.keras", cwd=tmp_path, TFDS_DATA_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for file in ("model.onnx", "saved_model"):
        assert any(file in line and "256/256" in line for line in lines)
    assert "256 synthetic images" in done.stdout  # CIFAR-10 is not in that folder
    assert lines[-1].startswith("wrote net-export")


def test_real_images_where_they_are(tmp_path, capsys, data_dir):
    keras_resnet.resnet(8).save(tmp_path / "net.keras")
    words = ["--data-dir", data_dir, "--formats", "onnx"]
    assert call("export", tmp_path / "net.keras", *words) == 0
    assert "256 cifar10 test images" in capsys.readouterr().out
    labels = (tmp_path / "net-export" / "labels.txt").read_text().splitlines()
    assert labels[:3] == ["airplane", "automobile", "bird"]
