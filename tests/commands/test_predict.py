"""`keras-resnet predict`: output, folders, and bad input."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_resnet.data import images
from keras_resnet.inference.classifier import Classifier
from tests.helpers import NAMES, REPOSITORY, call, export, make_net, random_images


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return export(make_net(), tmp_path_factory.mktemp("run") / "seed-0")["onnx"]


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


@pytest.fixture
def run(capsys, model):
    def run(*arguments):
        """Exit code, lines of stdout, lines of stderr."""
        code = call("predict", "--model", model, *arguments)
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def test_one_line_per_image_in_order(run, model, photos, monkeypatch):
    code, out, err = run(photos, photos / "b.png")
    names = ["a.PNG", "also/d.tif", "b.png", "sub/c.bmp", "b.png"]
    assert (code, err) == (0, [])
    assert [line.split(": ")[0] for line in out] == [str(photos / name) for name in names]
    for name, line in zip(names, out, strict=True):
        probabilities = Classifier.load(model).predict(photos / name)[0]
        best = np.argsort(-probabilities)[:3]
        expected = ", ".join(f"{NAMES[k]} {100 * probabilities[k]:.2f} %" for k in best)
        assert line == f"{photos / name}: {expected}"
    monkeypatch.setattr(images, "CHUNK", 2)
    assert run(photos, photos / "b.png") == (code, out, err)


def test_json(run, model, photos):
    bad = photos / "bad.png"
    bad.write_text("no image")
    code, out, err = run(photos / "b.png", bad, "--json", "--top-k", 99)
    result = json.loads("\n".join(out))
    assert code == 1 and len(err) == 1
    assert result["model"] == str(model)
    assert [e["path"] for e in result["errors"]] == [str(bad)]
    (image,) = result["images"]
    assert image["path"] == str(photos / "b.png")
    predictions = image["predictions"]
    assert len(predictions) == 10 and sum(p["probability"] for p in predictions) == pytest.approx(1)
    assert predictions == sorted(predictions, key=lambda p: -p["probability"])
    assert all(p["class_name"] == NAMES[p["class_id"]] for p in predictions)


def test_bad_images_are_named_and_the_others_done(run, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("no image")
    (tmp_path / "text.png").write_text("I am a poem.\n")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    wrong = [tmp_path / name for name in ("text.png", "phone.heic", "missing.png", "empty")]
    code, out, err = run(*wrong, photos / "b.png")
    assert code == 1
    assert len(out) == 1 and out[0].startswith(str(photos / "b.png"))
    for path, line in zip(wrong, err, strict=True):
        assert line.startswith("error: ") and str(path) in line
    assert "holds no image" in err[-1]


def test_names_of_files_cannot_write_to_the_terminal(run, tmp_path):
    (tmp_path / "a\x1b[31m\n.png").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(tmp_path / "b\x1b[31m\n.png")
    code, out, err = run(tmp_path)
    assert (code, len(out), len(err)) == (1, 1, 1)
    assert "\x1b" not in out[0] + err[0] and tmp_path.name in err[0]


ALONE = """
import sys
sys.modules.update({name: None for name in sys.argv[1].split()})
if sys.argv[2] == "read-only":
    def refuse(event, arguments):
        if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            raise OSError(101, "Network is unreachable")
        path, writes = str(arguments[0]), event == "open" and arguments[2] & 3
        if event == "os.mkdir" or writes and path.startswith("/") and not path.startswith("/dev/null"):
            raise OSError(30, "Read-only file system")
    sys.addaudithook(refuse)
from keras_resnet.__main__ import entry_point
sys.argv[1:], hidden = sys.argv[3:], sys.argv[1]
code = entry_point()
sys.exit(99 if "keras" in sys.modules and hidden else code)
"""


def in_a_process(hidden, disk, *arguments, **options):
    command = [sys.executable, "-B", "-c", ALONE, hidden, disk, "predict", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HOME": "/nonexistent"}
    done = subprocess.run(command, capture_output=True, cwd=REPOSITORY, env=environment, **options)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_an_onnx_file_needs_onnx_runtime_alone(model, run):
    """And the picture comes from stdin."""
    ship = REPOSITORY / "examples/ship.png"
    picture = ship.read_bytes()
    hidden = "tensorflow jax torch tensorflow_datasets onnx"
    code, out, err = in_a_process(hidden, "", "--model", model, "-", input=picture)
    assert (code, err) == (0, "")
    assert out.partition(": ")[2] == run(ship)[1][0].partition(": ")[2] + "\n"
    code, out, err = in_a_process(f"onnxruntime {hidden}", "", "--model", model, "-", input=picture)
    assert (code, out) == (2, "") and "pip install onnxruntime" in err
    code, out, err = in_a_process(hidden, "", "--model", model, "-", input=b"")
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_a_read_only_container_without_network(tmp_path):
    """A URL is refused; that wide pictures are squashed is said once."""
    files = ["examples/ship.png", "https://example.org/cat.png"]
    files += [tmp_path / "1.png", tmp_path / "2.png"]
    for file in files[2:]:
        Image.new("RGB", (90, 30)).save(file)
    code, out, err = in_a_process("", "read-only", "--model", "resnet56", *files)
    assert code == 1 and out.startswith("examples/ship.png: ship ") and out.count("\n") == 3, err
    url, note = err.splitlines()
    assert "https://example.org/cat.png could not be read" in url and "curl" in url
    assert note.startswith("note: pictures of another shape") and "squashed" in note
