"""What lies around the program: the user's Keras, backend, disk, terminal, system and imports."""

import dataclasses
import importlib.util
import json
import shutil

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import TrainConfig
from keras_resnet.errors import UserError
from tests.helpers import REPOSITORY, SMALL, python


@pytest.mark.slow
def test_other_settings_in_keras_json_change_nothing(tmp_path):
    config = {"backend": "tensorflow", "image_data_format": "channels_first", "floatx": "float16"}
    (tmp_path / "keras.json").write_text(json.dumps(config))
    variables = {"KERAS_HOME": str(tmp_path), "KERAS_MAX_STEPS_PER_EPOCH": "2"}
    code = (
        "import numpy as np, keras_resnet; net = keras_resnet.resnet(20, weights='cifar10', "
        "dtype='float32'); print(net.predict(np.zeros((2, 32, 32, 3), 'uint8'), verbose=0).dtype)"
    )
    done = python("-c", code, KERAS_HOME=str(tmp_path))
    assert done.returncode == 0 and done.stdout.strip() == "float32", done.stderr
    with open("/dev/full", "w") as full:  # and a full disk behind stdout ends no training
        done = python("train.py", *SMALL, "--output-dir", tmp_path, stdout=full, **variables)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (tmp_path / "x" / "seed-0" / "results.json").exists()


def test_a_limit_of_keras_that_would_end_a_run_early(monkeypatch):
    monkeypatch.setattr(keras.config, "max_steps_per_epoch", lambda: 2)
    with pytest.raises(UserError, match="KERAS_MAX_STEPS_PER_EPOCH must not be set"):
        keras_resnet.train(TrainConfig(dataset="synthetic"))


# Hides what Windows does not have, as far as the interpreter of another system can; then trains and predicts.
WINDOWS = """
import os, signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "tty"):
    sys.modules[name] = None
for module, names in (
    (signal, "SIGHUP SIGKILL SIGUSR1 SIGUSR2 SIGALRM pause alarm"),
    (os, "fork forkpty getuid geteuid getgid getegid getpgid killpg memfd_create mkfifo wait4 sysconf "
         "O_NONBLOCK O_NOFOLLOW sched_getaffinity"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
import keras_resnet as k, numpy as np
from keras_resnet.__main__ import main
from keras_resnet.commands import terminal
from keras_resnet.data import synthetic
synthetic.SYNTHETIC_SIZES = (2_000, 500)
assert terminal.run(lambda: main(["train", *sys.argv[1:]])) == 0
run = sys.argv[-1] + "/x/seed-0"
assert k.Classifier.load(run)(np.zeros((2, 32, 32, 3), "uint8")).shape == (2, 10)
sys.exit(terminal.run(lambda: main(["predict", "--model", run, "examples"])))
"""


def test_what_windows_lacks_is_not_needed(tmp_path):
    done = python("-c", WINDOWS, *SMALL, "--output-dir", tmp_path)
    assert done.returncode == 0 and ".png: " in done.stdout, done.stderr


@pytest.mark.parametrize("backend", ["bogus", "jax"])
def test_a_backend_that_is_not_there(backend):
    if importlib.util.find_spec(backend) is not None:
        pytest.skip(f"{backend} is installed")
    done = python("train.py", "--dataset", "synthetic", KERAS_BACKEND=backend)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "backend" in done.stderr


def test_export_takes_tensorflow_whatever_the_backend_is():
    done = python("export.py", "docs", KERAS_BACKEND="torch")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "docs" in done.stderr
    assert done.stdout == "note: this command runs on tensorflow, whatever backend is configured\n"


def test_a_full_disk_behind_stdout():
    with open("/dev/full", "w") as full:
        done = python("-m", "keras_resnet", "models", stdout=full)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "standard output must be writable" in done.stderr


def test_a_letter_that_the_terminal_lacks(tmp_path):
    shutil.copy(next((REPOSITORY / "examples").glob("*.png")), tmp_path / "\N{CAT FACE}.png")
    done = python("-m", "keras_resnet", "predict", str(tmp_path), PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "\\U0001f431.png: " in done.stdout, done.stderr


def test_numbers_and_paths_of_other_libraries_are_taken(tmp_path):
    assert keras_resnet.resnet(depth=np.int64(8)).name == "resnet8"
    config = TrainConfig(depth=np.int32(20), output_dir=tmp_path, learning_rate=np.float32(0.5))
    assert config.output_dir == str(tmp_path) and type(config.depth) is int
    json.dumps(dataclasses.asdict(config))


def test_a_number_that_is_none_is_named():
    for call, argument in (
        (lambda: keras_resnet.learning_rate_schedule(np.nan), "learning_rate"),
        (lambda: keras_resnet.SGD(momentum=np.nan), "momentum"),
        (lambda: keras_resnet.RandomPadCrop(padding=1.5), "padding"),
        (lambda: keras_resnet.RandomPadCrop(fill=(np.nan, 0, 0)), "fill"),
        (lambda: keras_resnet.RandomPadCrop(fill=(1.0,))(np.zeros((1, 8, 8, 3))), "fill"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"`{argument}` must be"):
            call()


def test_import_is_light_and_changes_nothing():
    code = (
        "import os, signal, sys, time, warnings; "
        "look = lambda: (dict(os.environ), list(warnings.filters), signal.getsignal(signal.SIGINT)); "
        "before, start = look(), time.process_time(); import keras_resnet; "
        "assert time.process_time() - start < 0.1 and look() == before; "
        "print(sorted({'keras', 'numpy', 'tensorflow'} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("imports", ["import keras, keras_resnet", "import keras_resnet, keras"])
def test_load_model_knows_our_classes_after_either_import(imports, tmp_path):
    net = keras_resnet.resnet(8)
    net.compile(keras_resnet.SGD(0.1, 0.9), "sparse_categorical_crossentropy")
    net.save(tmp_path / "net.keras")
    code = (
        f"{imports}; net = keras.models.load_model({str(tmp_path / 'net.keras')!r}); "
        "[getattr(keras_resnet, name) for name in keras_resnet.__all__]; "
        "print(type(net.optimizer) is keras_resnet.SGD, keras_resnet.recipes.PAPER.name, "
        "keras.saving.get_registered_object('keras_resnet>Muon') is keras_resnet.Muon)"
    )
    done = python("-c", code)
    assert done.stdout.strip() == "True paper True", done.stderr
