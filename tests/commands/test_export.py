"""export.py from outside: exit codes, one line per mistake, nothing half-written."""

from pathlib import Path

import keras_resnet
from tests.helpers import call


def test_each_mistake_is_one_line(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    keras_resnet.resnet(8).save("good.keras")
    Path("file").touch()
    for words in (
        # The tests may run as root, whom no permission stops: a place that nobody can write to.
        "--output file/export", "--output file", "--opset 19", "--formats web --runtime .", "--serve",
        "--formats web --serve 65536", "--dataset imagenet", "--output a\udcff",  # not UTF-8
    ):  # fmt: skip
        refused("export", "good.keras", *words.split())
        assert {path.name for path in tmp_path.iterdir()} == {"good.keras", "file"}, words
    Path("empty").mkdir()
    monkeypatch.chdir("empty")
    assert "a folder of its own" in refused("export", "../good.keras", "--output", ".")


def test_real_images_where_they_are(tmp_path, capsys, data_dir):
    keras_resnet.resnet(8).save(tmp_path / "net.keras")
    words = ["--data-dir", data_dir, "--formats", "onnx"]
    assert call("export", tmp_path / "net.keras", *words) == 0
    assert "256 cifar10 test images" in capsys.readouterr().out
    labels = (tmp_path / "net-export" / "labels.txt").read_text().splitlines()
    assert labels[:3] == ["airplane", "automobile", "bird"]
