"""`keras-resnet predict`: output, folders, and the table of bad input."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_resnet.commands import predict, terminal
from keras_resnet.commands.predict import main
from keras_resnet.data import images
from keras_resnet.inference.classifier import Classifier
from tests.helpers import FORMATS, NAMES, bad_models, bomb_png, export, make_net, random_images


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return export(make_net(), tmp_path_factory.mktemp("run") / "seed-0")


@pytest.fixture
def photos(tmp_path):
    """A folder with four images in two levels, and files that are none."""
    folder = tmp_path / "photos"
    for k, name in enumerate(("b.png", "a.PNG", "sub/c.bmp", "also/d.tif")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_images(40, 50, seed=k)).save(folder / name)
    for name in ("notes.txt", ".hidden.png", "Thumbs.db", ".git/e.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no image")
    return folder


def run(capsys, *arguments):
    """Exit code, lines of stdout, lines of stderr."""
    code = terminal.run(lambda: main([str(a) for a in arguments]))
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_line_an_image(capsys, files, photos, kind):
    code, out, err = run(capsys, "--model", files[kind], photos / "b.png", photos / "a.PNG")
    assert (code, err, len(out)) == (0, [], 2)
    probabilities = Classifier.load(files[kind]).predict(photos / "b.png")[0]
    best = np.argsort(-probabilities)[:3]
    expected = ", ".join(f"{NAMES[k]} {100 * probabilities[k]:.2f} %" for k in best)
    assert out[0] == f"{photos / 'b.png'}: {expected}"


def test_folders_are_walked_in_order(capsys, files, photos):
    code, out, err = run(capsys, "--model", files["onnx"], photos, "--top-k", 1)
    names = ["a.PNG", "b.png", "also/d.tif", "sub/c.bmp"]
    assert (code, err) == (0, [])
    assert [line.split(": ")[0] for line in out] == [str(photos / name) for name in names]
    assert all(line.count("%") == 1 for line in out)


def test_chunks_keep_paths_and_rows_together(capsys, files, photos, monkeypatch):
    _, expected, _ = run(capsys, "--model", files["onnx"], photos, photos)
    sizes, predicted = [], Classifier.predict
    monkeypatch.setattr(
        Classifier, "predict", lambda self, x: sizes.append(len(x)) or predicted(self, x)
    )
    monkeypatch.setattr(images, "CHUNK", 3)
    assert run(capsys, "--model", files["onnx"], photos, photos)[1] == expected
    assert len(expected) == 8 and sizes == [3, 3, 2]


def test_json(capsys, files, photos):
    bad = photos / "bad.png"
    bad.write_text("no image")
    arguments = ("--model", files["onnx"], photos / "b.png", bad, "--json", "--top-k", 99)
    code, out, err = run(capsys, *arguments)
    result = json.loads("\n".join(out))
    assert code == 1 and len(err) == 1
    assert result["model"] == str(files["onnx"])
    assert [e["path"] for e in result["errors"]] == [str(bad)]
    (image,) = result["images"]
    assert image["path"] == str(photos / "b.png")
    predictions = image["predictions"]
    assert len(predictions) == 10 and sum(p["probability"] for p in predictions) == pytest.approx(1)
    assert predictions == sorted(predictions, key=lambda p: -p["probability"])
    assert all(p["class_name"] == NAMES[p["class_id"]] for p in predictions)


def test_bad_images_are_named_and_the_others_done(capsys, files, photos, tmp_path):
    bad = {
        "text.png": b"I am a poem.\n",
        "zero.png": b"",
        "bomb.png": bomb_png(20_000, 20_000),
        "cut.png": (photos / "b.png").read_bytes()[:2000],
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty").mkdir()
    wrong = [tmp_path / name for name in (*bad, "missing.png", "empty")]
    code, out, err = run(capsys, "--model", files["onnx"], *wrong, photos / "b.png")
    assert code == 1
    assert len(out) == 1 and out[0].startswith(str(photos / "b.png"))
    assert len(err) == len(wrong)
    for path, line in zip(wrong, err, strict=True):
        assert line.startswith("error: ") and str(path) in line


def test_an_empty_folder_is_an_error(capsys, files, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    code, out, err = run(capsys, "--model", files["onnx"], tmp_path)
    assert (code, out, len(err)) == (1, [], 1)
    assert "holds no image" in err[0]


def test_bad_models_end_in_one_line(capsys, files, photos, tmp_path):
    for name, (path, _) in bad_models(tmp_path, files).items():
        code, out, err = run(capsys, "--model", path, photos)
        assert (code, out, len(err)) == (2, [], 1), (name, err)
        assert err[0].startswith("error: ") and path.name in err[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "m.onnx"], "IMAGE"),
        (["--model", "m.onnx", "a.png", "--top-k", "0"], "--top-k must be 1 or more"),
        (["--model", "m.onnx", "a.png", "--top-k", "x"], "--top-k"),
    ],
)
def test_bad_flags_end_in_one_line(capsys, arguments, message):
    try:
        code = terminal.run(lambda: main(arguments))
    except SystemExit as error:
        code = error.code
    err = capsys.readouterr().err.splitlines()
    assert code == 2 and len(err) == 1 and message in err[0]


def test_names_of_files_cannot_write_to_the_terminal(capsys, files, tmp_path):
    (tmp_path / "a\x1b[31m\n.png").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(tmp_path / "b\x1b[31m\n.png")
    code, out, err = run(capsys, "--model", files["onnx"], tmp_path)
    assert (code, len(out), len(err)) == (1, 1, 1)
    assert "\x1b" not in out[0] + err[0]


def test_a_terminal_without_the_letters(files, tmp_path, monkeypatch):
    Image.new("RGB", (9, 9)).save(tmp_path / "kočka.png")
    odd = os.fsencode(tmp_path) + b"/\xff.png"  # not UTF-8
    Path(os.fsdecode(odd)).write_bytes((tmp_path / "kočka.png").read_bytes())
    for encoding in ("ascii", "utf-8"):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", out)
        code = terminal.run(lambda: main(["--model", str(files["onnx"]), str(tmp_path)]))
        out.seek(0)
        assert code == 0 and len(out.read().splitlines()) == 2


def test_as_a_command(files, photos):
    done = subprocess.run(
        [sys.executable, "-m", "keras_resnet", "predict", "--model", str(files["onnx"])]
        + [str(photos / name) for name in ("b.png", "missing.png")],
        capture_output=True,
        text=True,
        cwd=Path(predict.__file__).parents[2],
    )
    assert done.returncode == 1 and done.stdout.startswith(f"{photos / 'b.png'}: ")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "missing.png" in errors[0]
