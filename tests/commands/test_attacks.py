"""Input that nobody should give and somebody will: one line, exit code 2, nothing overwritten or hung.

One case here for each kind that an attack of 707 bad inputs on version 0.1.0 found wrong.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_resnet
from keras_resnet import TrainConfig
from keras_resnet.__main__ import main
from keras_resnet.commands import terminal
from keras_resnet.data import synthetic

REPOSITORY = Path(__file__).resolve().parents[2]
FLAGS = [
    "--depth", "8", "--dataset", "synthetic", "--val-size", "100", "--batch-size", "8", "--steps", "8",
    "--eval-every", "2", "--checkpoint-every", "4", "--name", "x",
]  # fmt: skip


def call(*arguments: object) -> int:
    try:
        return terminal.run(lambda: main([str(a) for a in arguments]))
    except SystemExit as stop:
        return int(stop.code or 0)


def train(folder: Path, *flags: object) -> int:
    return call("train", *FLAGS, "--output-dir", folder.parents[1], *flags)


def assert_one_line(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("error: "), error
    for part in parts:
        assert part in lines[0]


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 8 updates."""
    folder = tmp_path_factory.mktemp("runs") / "x" / "seed-0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SYNTHETIC_SIZES", (2_000, 500))
        assert train(folder) == 0
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that may be damaged."""
    monkeypatch.setattr(synthetic, "SYNTHETIC_SIZES", (2_000, 500))
    shutil.copytree(whole, tmp_path / "x" / "seed-0")
    return tmp_path / "x" / "seed-0"


def unfinished(run: Path) -> Path:
    """The same, stopped at update 4."""
    for name in ("results.json", "model.keras", "checkpoints/step-00000008.npz"):
        (run / name).unlink()
    return run


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


# --- overwriting ----------------------------------------------------------------------------------


def test_a_report_does_not_replace_the_files_of_a_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    assert call("report", run, "--output", run) == 2
    assert_one_line(capsys, "--output must not be the folder of a run")
    assert contents(run) == before


def test_convert_does_not_replace_a_trained_net(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    golden = REPOSITORY / "tests/golden/resnet8_split.safetensors"
    flags = ["--depth", 8, "--padding", "split", "--output", run / "model.keras"]
    assert call("convert", golden, *flags) == 2
    assert_one_line(capsys, "must not be the folder of a run")
    assert contents(run) == before


@pytest.mark.parametrize(("output", "told"), [("/", "--output"), ("loop", "could not be written")])
def test_export_to_a_place_that_cannot_be(
    output: str, told: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    target = output if output == "/" else tmp_path / output
    assert call("export", run, "--formats", "onnx", "--output", target) == 2
    assert_one_line(capsys, told)


def test_export_to_the_working_folder(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run)
    before = contents(run)
    assert call("export", run, "--formats", "onnx", "--output", ".") == 2
    assert_one_line(capsys, "would be replaced, but holds what this command did not write")
    assert contents(run) == before


# --- files of a run that make no sense ------------------------------------------------------------


def settings(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["settings"].update(values)


@pytest.mark.parametrize(
    ("name", "edit", "told"),
    [
        ("config.json", lambda c: c.update(settings=[1]), "settings"),
        ("config.json", lambda c: c.update(precision="int4"), "precision"),
        ("results.json", lambda r: r.update(test_error="8.5"), "test_error"),
    ],
)
@pytest.mark.parametrize("command", ["train", "report"])
def test_json_of_other_types_names_file_and_key(
    command: str,
    name: str,
    edit: Callable[[dict[str, Any]], None],
    told: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(run / name, edit)
    before = contents(run)
    code = train(run) if command == "train" else call("report", run, "--output", run.parent / "r")
    assert code == 2
    assert_one_line(capsys, name, told)
    assert contents(run) == before


def test_a_run_without_its_precision(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(run / "config.json", lambda config: config.pop("precision"))
    assert train(run) == 2
    assert_one_line(capsys, "config.json")


def test_a_resume_without_config_keeps_the_settings_of_its_checkpoint(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (unfinished(run) / "config.json").unlink()
    before = contents(run)
    assert train(run, "--learning-rate", 0.05) == 2
    assert_one_line(capsys, "--learning-rate 0.1 there, 0.05 now")
    assert contents(run) == before


# --- silently wrong -------------------------------------------------------------------------------


def test_a_flipped_bit_in_an_exported_file_is_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("export", run, "--formats", "onnx", "--output", tmp_path / "out") == 0
    capsys.readouterr()
    for name in ("model.onnx", "model.keras"):
        data = bytearray((tmp_path / "out" / name).read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "out" / name).write_bytes(data)
        assert call("evaluate", "--model", tmp_path / "out" / name) == 2
        assert_one_line(capsys, f"{name} is damaged: its SHA-256")


def test_complex_tensors_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    save_file({"conv.weight": np.zeros((16, 3, 3, 3), np.complex64)}, tmp_path / "c.safetensors")
    flags = ["--depth", 8, "--output", tmp_path / "net.keras"]
    assert call("convert", tmp_path / "c.safetensors", *flags) == 2
    assert_one_line(capsys, "complex64")


def test_an_export_beside_one_of_the_users_folders(run: Path, tmp_path: Path) -> None:
    """The old export waits under a name of ours while it is replaced, never under one of the user's."""
    mine = tmp_path / "out.old" / "precious.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    for _ in range(2):
        assert call("export", run, "--formats", "onnx", "--output", tmp_path / "out") == 0
    assert mine.read_text() == "mine"
    # And an export can be exported again.
    assert call("export", tmp_path / "out", "--formats", "onnx", "--output", tmp_path / "two") == 0


# --- the user's own Keras -------------------------------------------------------------------------


def plain_environment() -> dict[str, str]:
    """As a user has it: without what tests/conftest.py sets."""
    return {k: v for k, v in os.environ.items() if not k.startswith("TF_")}


def python(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *(("-c", code) if code else ()), *arguments],
        cwd=REPOSITORY, env={**plain_environment(), **variables},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
def test_other_settings_in_keras_json_change_nothing(tmp_path: Path) -> None:
    config = {"backend": "tensorflow", "image_data_format": "channels_first", "floatx": "float16"}
    (tmp_path / "keras.json").write_text(json.dumps(config))
    code = (
        "import numpy as np, keras_resnet; net = keras_resnet.resnet(20, weights='cifar10', "
        "dtype='float32'); print(net.predict(np.zeros((2, 32, 32, 3), 'uint8'), verbose=0).dtype)"
    )
    done = python(code, KERAS_HOME=str(tmp_path))
    assert done.returncode == 0 and done.stdout.strip() == "float32", done.stderr
    flags = [*FLAGS, "--output-dir", str(tmp_path)]
    done = python("", "train.py", *flags, KERAS_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", ["bogus", "jax"])
def test_a_backend_that_is_not_there(backend: str) -> None:
    if importlib.util.find_spec(backend) is not None:
        pytest.skip(f"{backend} is installed")
    done = python("", "train.py", "--dataset", "synthetic", KERAS_BACKEND=backend)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "backend" in done.stderr


def test_a_command_that_needs_tensorflow_says_so_where_it_is_not_there() -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *rest: None if name == 'tensorflow' else find(name, *rest); "
        "sys.argv = ['keras-resnet', 'export', 'docs']; "
        "from keras_resnet.__main__ import entry_point; sys.exit(entry_point())"
    )
    done = python(code, KERAS_BACKEND="jax")
    assert done.returncode == 2 and done.stdout == "", done.stdout
    assert "needs tensorflow, which is not installed: pip install -r" in done.stderr
    assert done.stderr.count("\n") == 1


def test_tensorflows_notes_are_hidden_where_its_level_is_set_too() -> None:
    done = python("", "-m", "keras_resnet", "models", "--depth", "8", TF_CPP_MIN_LOG_LEVEL="3")
    assert done.returncode == 0 and done.stderr == ""


def test_export_takes_tensorflow_whatever_the_backend_is() -> None:
    done = python("", "export.py", "docs", KERAS_BACKEND="torch")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "docs" in done.stderr
    assert done.stdout == "note: this command runs on tensorflow, whatever KERAS_BACKEND says\n"


# --- output that cannot be written ----------------------------------------------------------------


@pytest.mark.parametrize("command", [["models"], ["predict", "examples"]])
def test_a_full_disk_behind_stdout(command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "keras_resnet", *command],
            cwd=REPOSITORY, env=plain_environment(), stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=120,
        )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "standard output must be writable" in done.stderr


@pytest.mark.slow
def test_training_goes_on_without_words(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "train.py", *FLAGS, "--output-dir", str(tmp_path)],
            cwd=REPOSITORY, env=plain_environment(), stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=120,
        )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
    assert (tmp_path / "x" / "seed-0" / "results.json").exists()


def test_a_letter_that_the_terminal_lacks(tmp_path: Path) -> None:
    shutil.copy(next((REPOSITORY / "examples").glob("*.png")), tmp_path / "\N{CAT FACE}.png")
    done = python("", "-m", "keras_resnet", "predict", str(tmp_path), PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "\\U0001f431.png: " in done.stdout, done.stderr


# --- the Python interface -------------------------------------------------------------------------


def test_numbers_and_paths_of_other_libraries_are_taken(tmp_path: Path) -> None:
    assert keras_resnet.resnet(depth=np.int64(8)).name == "resnet8"
    config = TrainConfig(depth=np.int32(20), output_dir=tmp_path, learning_rate=np.float32(0.5))
    assert config.output_dir == str(tmp_path) and type(config.depth) is int
    json.dumps(dataclasses.asdict(config))


# --- `import keras_resnet` ------------------------------------------------------------------------


def test_import_is_light_and_changes_nothing() -> None:
    code = (
        "import os, signal, sys, time, warnings; "
        "look = lambda: (dict(os.environ), list(warnings.filters), signal.getsignal(signal.SIGINT)); "
        "before, start = look(), time.perf_counter(); import keras_resnet; "
        "assert time.perf_counter() - start < 0.1 and look() == before; "
        "print(sorted({'keras', 'numpy', 'tensorflow'} & set(sys.modules)))"
    )
    done = python(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_public_names_load_when_they_are_used() -> None:
    code = "import keras_resnet as k; [getattr(k, name) for name in k.__all__]; print(k.recipes.PAPER.name)"
    done = python(code)
    assert done.stdout.strip() == "paper", done.stderr


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file that holds our layers and optimizer."""
    net = keras_resnet.resnet(8)
    net.compile(keras_resnet.SGD(0.1, 0.9), "sparse_categorical_crossentropy")
    path = tmp_path_factory.mktemp("saved") / "net.keras"
    net.save(path)
    return str(path)


@pytest.mark.parametrize(
    "imports",
    [
        "import keras, keras_resnet",
        "import keras_resnet, keras",
        "import importlib.util, keras_resnet; importlib.util.find_spec('keras'); import keras",
    ],
)
def test_load_model_knows_our_classes_after_either_import(imports: str, saved: str) -> None:
    code = (
        f"{imports}; net = keras.models.load_model({saved!r}); "
        "print(type(net.optimizer) is keras_resnet.SGD, "
        "keras.saving.get_registered_object('keras_resnet>Muon') is keras_resnet.Muon)"
    )
    done = python(code)
    assert done.stdout.strip() == "True True", done.stderr
