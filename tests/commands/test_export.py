"""export.py from outside: exit codes, one line per mistake, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import export
import keras_resnet
from keras_resnet.commands import terminal

REPOSITORY = Path(__file__).resolve().parents[2]


def run(capfd: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    """The command in this process: (exit code, stdout, stderr)."""
    capfd.readouterr()
    try:
        code = terminal.run(lambda: export.main([str(a) for a in arguments]))
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capfd.readouterr()


def bad_inputs(folder: Path) -> dict[str, list[object]]:
    good = folder / "good.keras"
    keras_resnet.resnet(8).save(good)
    content = good.read_bytes()
    (folder / "truncated.keras").write_bytes(content[: len(content) // 2])
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(folder / "torn.keras", "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            archive.writestr(name, data[: len(data) // 2] if name.endswith("h5") else data)
    layers = [keras.Input((32, 32, 3)), keras.layers.MaxPooling2D()]
    keras.Sequential(layers).save(folder / "other.keras")
    image = keras.Input((32, 32, 3), name="image")
    keras.Model(image, keras.layers.Lambda(lambda x: x)(image)).save(folder / "lambda.keras")
    broken = keras_resnet.resnet(8)
    broken.get_layer("head_dense").bias.assign(np.full(10, np.nan))
    broken.save(folder / "nan.keras")
    unfinished = folder / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text("{}")
    (folder / "file").write_text("")
    return {
        "missing path": [folder / "nowhere"],
        "truncated": [folder / "truncated.keras"],
        "torn weights": [folder / "torn.keras"],
        "no classifier": [folder / "other.keras"],
        "lambda": [folder / "lambda.keras"],
        "NaN weights": [folder / "nan.keras"],
        "unfinished run": [unfinished],
        # The tests may run as root, whom no permission stops: places that nobody can write to.
        "output below a file": [good, "--output", folder / "file" / "export"],
        "output in /proc": [good, "--output", "/proc/export"],
        "output is a file": [good, "--output", folder / "file"],
        "output is not UTF-8": [good, "--output", f"{folder}/a\udcff"],  # Python's form of a byte
        "opset": [good, "--opset", 19],
        "format": [good, "--formats", "coreml"],
        "no runtime": [good, "--formats", "web", "--runtime", folder],
        "serve without web": [good, "--serve"],
        "no port": [good, "--formats", "web", "--serve", 65536],
        "data set": [good, "--dataset", "imagenet"],
    }


def test_each_mistake_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    cases = bad_inputs(tmp_path)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for name, arguments in cases.items():
        code, out, err = run(capfd, *arguments)
        assert code == 2, name
        assert out == "", name
        assert err.startswith("error: ") and err.count("\n") == 1, f"{name}: {err!r}"
        assert "Traceback" not in err and len(err) < 600, f"{name}: {err!r}"
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_the_real_command(tmp_path: Path) -> None:
    """As a user runs it, from another folder."""
    keras_resnet.resnet(8).save(tmp_path / "net.keras")
    done = subprocess.run(
        [sys.executable, REPOSITORY / "export.py", "net.keras"],
        cwd=tmp_path,
        env={**os.environ, "TFDS_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for file in ("model.onnx", "saved_model"):
        assert any(file in line and "256/256" in line for line in lines)
    assert "256 synthetic images" in done.stdout  # CIFAR-10 is not in that folder
    assert lines[-1].startswith("wrote net-export")


def test_real_images_where_they_are(tmp_path: Path, capfd, data_dir: str) -> None:
    keras_resnet.resnet(8).save(tmp_path / "net.keras")
    code, out, err = run(capfd, tmp_path / "net.keras", "--data-dir", data_dir, "--formats", "onnx")
    assert code == 0, err
    assert "256 cifar10 test images" in out
    labels = (tmp_path / "net-export" / "labels.txt").read_text().splitlines()
    assert labels[:3] == ["airplane", "automobile", "bird"]
