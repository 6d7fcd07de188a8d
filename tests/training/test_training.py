"""Training for real: a small net learns, the same seed repeats, the files are what they say."""

import functools
import itertools
import json
import os
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from keras_resnet.data import augmentation, constants, datasets, stream
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import DIVERGED, UserError
from keras_resnet.runs import checkpoint, files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunFolder
from keras_resnet.runs.run import runs_of
from keras_resnet.training import backends, devices, trainer
from keras_resnet.training.backends import tensorflow
from keras_resnet.training.model import CHUNK, chunks
from keras_resnet.training.progress import Progress, ProgressBar
from keras_resnet.training.signals import Signals
from tests.helpers import call, contents, train
from tests.training.test_net import stop_at

pytestmark = pytest.mark.usefixtures("small_synthetic")
LONG = ("--val-size=300", "--batch-size=32", "--steps=300", "--eval-every=100")


def rows(folder):
    return RunFolder(folder).read_metrics()


def results(folder):
    return json.loads((folder / "results.json").read_text())


def newest(folder):
    return checkpoint.list_checkpoints(folder)[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_synthetic):
    """A run of 300 updates that several tests look at."""
    output = tmp_path_factory.mktemp("finished")
    assert train(output, *LONG) == 0
    return output / "x/seed-0"


@pytest.mark.parametrize("start", [0, 7])
def test_fit_is_fed_the_stream_from_any_step_on(start):
    (run,) = runs_of(TrainConfig(batch_size=30, seed=3))
    # 1,000 images: a permutation ends inside a chunk, and inside a batch.
    train = np.arange(0, 2_000, 2)
    labels = np.random.default_rng(0).integers(0, 10, 2_000).astype(np.int32)
    fed = backends.current().feed(functools.partial(chunks, run, labels, train, start))
    for step, ((index, draw), label) in enumerate(itertools.islice(fed, 2 * CHUNK + 5), start):
        expected = train[stream.batch_indices(3, step, len(train), 30)]
        np.testing.assert_array_equal(index, expected)
        np.testing.assert_array_equal(label, labels[expected])
        np.testing.assert_array_equal(draw, augmentation.draw_crops(3, step, 1, 30, 4)[0])


def test_a_small_net_learns_and_its_folder_says_how(finished):
    found, config = results(finished), RunFolder(finished).read_config()
    assert found["test_error"] < 45  # chance: 90
    assert [row["step"] for row in rows(finished)] == [100, 200, 300]
    assert [row["learning_rate"] for row in rows(finished)] == [0.1, 0.01, 0.001]
    losses = [row["train_loss"] for row in rows(finished)]
    assert losses[-1] < 0.7 * losses[0]
    assert config["settings"]["depth"] == 8 and found["device"] == config["device"]
    assert config["class_names"] == list(constants.SYNTHETIC_CLASSES)
    assert set(config["versions"]) >= {"keras", "tensorflow", "numpy"}
    assert config["onednn"] is devices.onednn()
    assert list((finished / "tensorboard").glob("events.out.tfevents.*"))
    assert not list(finished.rglob(".tmp-*"))
    # The first update pays for tracing and is not timed.
    state = checkpoint.load(newest(finished))[1]
    assert state["timed"] == 299
    assert found["images_per_second"] == pytest.approx(299 * 32 / state["seconds"], rel=1e-3)


def test_a_finished_run_is_left_alone_and_gets_its_net_back(finished, tmp_path, capsys):
    folder = tmp_path / "x/seed-0"
    shutil.copytree(finished, folder)
    before = contents(folder)
    assert train(tmp_path, *LONG) == 0 and "is finished" in capsys.readouterr().out
    assert contents(folder) == before
    (folder / "model.keras").unlink()
    assert train(tmp_path, *LONG) == 0 and rows(folder) == rows(finished)
    a, b = (keras.models.load_model(path / "model.keras") for path in (finished, folder))
    for one, other in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_settings_are_refused(finished, refused):
    error = refused(
        "train", "--depth=8", "--dataset=synthetic", "--name=x", "--val-size=300", "--batch-size=32",
        "--steps=300", "--learning-rate=0.05", "--output-dir", finished.parents[1],
    )  # fmt: skip
    for part in ("--learning-rate 0.1 there, 0.05 now", "--eval-every 100 there, 500 now"):
        assert part in error
    assert "--depth" not in error


def test_float16_s_skipped_updates_do_not_advance_the_schedule(tmp_path, monkeypatch):
    """The rate drops after four updates that were made, and metrics.csv says the rate they had."""
    scaled = functools.partial(keras.optimizers.LossScaleOptimizer, initial_scale=2.0**20)
    monkeypatch.setattr(keras.optimizers, "LossScaleOptimizer", scaled)
    assert train(tmp_path, "--eval-every=1", "--precision=mixed_float16") == 0
    arrays, _ = checkpoint.load(newest(tmp_path / "x/seed-0"))
    # The loss scaling has a count of its own, which stays at 0.
    made = max(int(value) for name, value in arrays.items() if name.endswith("/iteration"))
    skipped = 8 - made
    assert 0 < skipped < 4, "otherwise this tests nothing"
    rates = [row["learning_rate"] for row in rows(tmp_path / "x/seed-0")]
    assert rates.count(0.1) == 4 + skipped and rates == sorted(rates, reverse=True)


def test_a_run_that_moves_to_a_gpu_at_an_odd_update(tmp_path, monkeypatch, capsys):
    """What only a GPU gets, XLA and several updates per execution, on a CPU that plays one."""
    flags = ["--steps=80", "--batch-size=32", "--eval-every=40", "--checkpoint-every=40"]
    flags += ["--precision=float32"]
    assert train(tmp_path, *flags, "--name=cpu") == 0
    with monkeypatch.context() as patch:
        stop_at(17, patch)
        assert train(tmp_path, *flags) == 128 + signal.SIGTERM
    gpu = backends.Hardware("GPU", "a CPU that plays one")
    monkeypatch.setattr(tensorflow.BACKEND, "hardware", lambda: gpu)
    capsys.readouterr()
    assert train(tmp_path, *flags) == 0
    out = capsys.readouterr().out
    assert "resuming at update 17 of 80" in out and "began with another device" in out
    cpu, moved = (rows(tmp_path / name / "seed-0") for name in ("cpu", "x"))
    assert [row["step"] for row in moved] == [40, 80]
    # The same batches, crops and flips; sums in another order.
    assert moved[0]["train_loss"] == pytest.approx(cpu[0]["train_loss"], rel=0.02)
    assert newest(tmp_path / "x/seed-0").name == "step-00000080.npz"


def test_several_runs_are_summarised(tmp_path, capsys):
    both = ["--val-size=0", "--seed=4", "--runs=2"]
    assert train(tmp_path, *both) == 0
    summary = tmp_path / "x/summary.json"
    found, text = json.loads(summary.read_text()), summary.read_text()
    assert found["seeds"] == [4, 5] and found["runs"] == 2
    assert found["test_error_std"] == pytest.approx(np.std(found["test_errors"], ddof=1), abs=1e-3)
    assert rows(tmp_path / "x/seed-4")[0]["val_error"] is None
    summary.unlink()
    file = shutil.copytree(tmp_path / "x/seed-5", tmp_path / "x/seed-5-copy") / "config.json"
    file.write_text(file.read_text().replace('"seed": 5', '"seed": 6'))  # no run of the name
    assert train(tmp_path, *both) == 0  # both are finished
    assert capsys.readouterr().out.count("seeds [4, 5]") == 2
    assert summary.read_text() == text
    assert train(tmp_path, "--val-size=0", "--steps=12", "--seed=1") == 0  # another recipe
    assert json.loads(summary.read_text())["seeds"] == [1]


@pytest.mark.parametrize("rate", [1e30, 1000])
def test_a_run_that_diverges_ends(rate, tmp_path, capsys):
    """ReLU hides the NaN of the second from the loss: the variables are checked before they are saved."""
    flags = ["--batch-size=32", "--steps=20", "--checkpoint-every=5"]
    assert train(tmp_path, *flags, "--learning-rate", rate) == DIVERGED == 3
    error = capsys.readouterr().err
    assert "NaN or infinite at or before update" in error and error.count("\n") == 1
    assert not list(tmp_path.rglob("results.json")) and not list(tmp_path.rglob("model.keras"))


def test_bad_flags(tmp_path, refused):
    # Few steps, so that a check that is gone fails here and does not train for hours.
    own = ["--dataset=synthetic", "--depth=8", "--steps=8", "--val-size=300"]
    for flags, message in (
        (["--batch-size", 5000], "--batch-size must be at most the 1700 training images"),
        (["--image-size", 64], "--image-size must be left out for synthetic, of 32x32"),
        (["--name", "a\nb"], r"Received: 'a\nb'"),
        (["--name", "v1.old-1"], "nor ends in .old-1"),
        (["--config", ""], ". must be a run folder, but holds no config.json"),
        (["--output-dir", "/dev/null/x"], "the output folder must be writable"),
        (["--name", "x" * 300, "--restart"], "(File name too long)"),
    ):
        assert message in refused("train", "--output-dir", tmp_path, *own, *flags)
        assert not list(tmp_path.iterdir())


def test_data_of_another_name_than_the_settings_is_refused(tmp_path):
    """Else its error would stand beside the paper's."""
    with pytest.raises(UserError, match="`dataset`, cifar10. Received: synthetic"):
        trainer.train(TrainConfig(output_dir=str(tmp_path)), data=datasets.load("synthetic"))
    with pytest.raises(ValueError, match="`data` a Dataset. Received: .*'x'"):
        trainer.train(TrainConfig(output_dir=str(tmp_path)), data="x")
    images, labels = np.zeros((40, 8, 8, 3), np.uint8), np.arange(40) % 2
    config = TrainConfig(output_dir=str(tmp_path), dataset="images", image_size=16)
    with pytest.raises(UserError, match="that of `data`, 8. Received: 16"):
        trainer.train(config, data=Dataset.from_arrays(images, labels))
    assert not list(tmp_path.rglob("config.json"))


@pytest.mark.slow
def test_a_net_learns_cifar10(tmp_path, data_dir):
    flags = ["--depth=8", "--steps=300", "--val-size=100", f"--data-dir={data_dir}", "--name=x"]
    assert call("train", *flags, f"--output-dir={tmp_path}") == 0
    assert results(tmp_path / "x/seed-0")["test_error"] < 60  # chance: 90


def test_what_is_wrong_with_a_later_seed_is_said_before_the_first_trains(tmp_path, capsys):
    assert train(tmp_path, "--seed=1") == 0
    assert train(tmp_path, "--runs=2", "--learning-rate=0.05") == 2
    assert "seed-1 holds a run with other settings" in capsys.readouterr().err
    assert not (tmp_path / "x/seed-0").exists()


def test_restart_moves_all_runs_aside_before_the_first_trains(tmp_path, monkeypatch):
    assert train(tmp_path, "--runs=2") == 0
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert train(tmp_path, "--runs=2", "--restart") == 128 + signal.SIGTERM
    # So that the same command without --restart trains seed 1 too.
    found = {path.name for path in (tmp_path / "x").glob("seed-*")}
    assert found == {"seed-0", "seed-0.old-1", "seed-1.old-1"}


@pytest.mark.parametrize("damage", [["--learning-rate=0.05"], ["--seed=0"]])
def test_restart_of_a_run_that_cannot_be_resumed(damage, tmp_path, capsys):
    """Other settings, and a config.json that is no more: the messages advise it."""
    assert train(tmp_path) == 0
    if damage == ["--seed=0"]:
        (tmp_path / "x/seed-0/config.json").write_text("")
    assert train(tmp_path, *damage) == 2
    assert "--restart" in capsys.readouterr().err
    assert train(tmp_path, *damage, "--restart") == 0
    assert (tmp_path / "x/seed-0.old-1").is_dir()


def test_restart_moves_nothing_where_another_process_trains(tmp_path, capsys):
    assert train(tmp_path, "--runs=2") == 0
    with files.lock(tmp_path / "x/seed-1"):
        assert train(tmp_path, "--runs=2", "--restart") == 2
    assert "another process is training" in capsys.readouterr().err
    assert not list(tmp_path.glob("x/*.old-*"))


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, capsys):
    folder = tmp_path / "x/seed-0"
    folder.mkdir(parents=True)
    (folder / "tensorboard").touch()  # a file where the folder should be
    assert train(tmp_path) == 0
    assert "warning: the log (tensorboard) could not be written" in capsys.readouterr().out
    assert (folder / "results.json").exists()


@pytest.mark.parametrize("runs", [1, 2])
def test_a_signal_during_the_test_of_a_seed(runs, tmp_path, monkeypatch, capsys):
    """The seed ends as usual; that it was interrupted is said only where another would have followed."""
    known = trainer.loss_and_error

    def measure(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return known(*arguments)

    monkeypatch.setattr(trainer, "loss_and_error", measure)
    code = train(tmp_path, "--runs", runs)
    assert (tmp_path / "x/seed-0/results.json").exists() and not (tmp_path / "x/seed-1").exists()
    error = capsys.readouterr().err
    assert (code, error) == (0, "") if runs == 1 else (code == 143 and "resumes" in error)


def test_signals_are_left_alone_in_a_thread_and_where_they_are_ignored():
    """The second is what `nohup` is for."""
    old = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor() as pool:
        assert pool.submit(lambda: Signals().__enter__()).result().received == 0
    assert signal.getsignal(signal.SIGTERM) is old
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Signals():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, hangup)


def test_the_time_left_is_that_of_updates_alone(monkeypatch, capsys):
    """Compiling takes a second here, an update 5 ms; bar and text agree on what is left."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress(runs_of(TrainConfig(steps=4_000, batch_size=10, runs=3))[0])
    bar = ProgressBar(progress)
    for step in range(1, 61):
        now[0] += 1.0 if step == 1 else 0.005
        progress.count(step)
        bar.on_train_batch_end(step - 1, {"loss": 1.0})
        progress.resume_clock()
    bar.close()
    out, drawn = capsys.readouterr()
    assert "about 20 s (60 s with the later seeds)" in out
    assert "60/4000, 20 s left, loss 1.000, 2000 images/s" in drawn
