"""Training for real: a small net learns, the same seed repeats, the files are what they say."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import train as command
from keras_resnet.commands import terminal
from keras_resnet.data import augmentation, constants, datasets, stream, synthetic
from keras_resnet.errors import DIVERGED, UserError
from keras_resnet.runs import checkpoint
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import MetricsRow, RunFolder
from keras_resnet.runs.run import runs_of
from keras_resnet.training import backends, devices, trainer
from keras_resnet.training.backends import tensorflow
from keras_resnet.training.model import CHUNK, chunks_of_batches
from keras_resnet.training.signals import Signals
from tests.training.test_net import stop_at

pytestmark = pytest.mark.usefixtures("small_synthetic")
SMALL = ["--depth", "8", "--dataset", "synthetic", "--val-size", "300", "--batch-size", "32"]
Capture = pytest.CaptureFixture[str]


def run(*flags: object) -> int:
    return terminal.run(lambda: command.main([*SMALL, *map(str, flags)]))


def rows(folder: Path) -> list[MetricsRow]:
    return RunFolder(folder).read_metrics()


def results(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 300 updates that several tests look at."""
    output = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SYNTHETIC_SIZES", (2_000, 500))
        assert run("--steps", 300, "--eval-every", 100, "--output-dir", output, "--name", "x") == 0
    return output / "x/seed-0"


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> tuple[Path, Callable[[], int]]:
    """A copy of that run, and the same command for it."""
    folder = tmp_path / "x/seed-0"
    shutil.copytree(finished, folder)
    flags = ["--steps", 300, "--eval-every", 100, "--output-dir", tmp_path, "--name", "x"]
    return folder, lambda: run(*flags)


@pytest.mark.parametrize("start", [0, 7, CHUNK])
def test_fit_is_fed_the_stream_from_any_step_on(start: int) -> None:
    (run,) = runs_of(TrainConfig(batch_size=30, seed=3))
    # 1,000 images: a permutation ends inside a chunk, and inside a batch.
    train = np.arange(0, 2_000, 2)
    labels = np.random.default_rng(0).integers(0, 10, 2_000).astype(np.int32)
    fed = backends.current().feed(chunks_of_batches(run, labels, train, start))
    for step, ((index, draw), label) in enumerate(itertools.islice(fed, 2 * CHUNK + 5), start):
        expected = train[stream.batch_indices(3, step, len(train), 30)]
        np.testing.assert_array_equal(index, expected)
        np.testing.assert_array_equal(label, labels[expected])
        np.testing.assert_array_equal(draw, augmentation.draw_crops(3, step, 1, 30)[0])
        assert index.dtype == label.dtype == draw.dtype == "int32"


def test_a_small_net_learns_and_its_folder_says_how(finished: Path) -> None:
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
    state = checkpoint.load(checkpoint.list_checkpoints(finished)[0])[1]
    assert state["timed"] == 299
    assert found["images_per_second"] == pytest.approx(299 * 32 / state["seconds"], rel=1e-3)


def test_the_saved_net_scores_the_test_error(finished: Path) -> None:
    net = keras.models.load_model(finished / "model.keras")
    assert {layer.dtype_policy.name for layer in net.layers} == {"float32"}
    data = datasets.load("synthetic")
    predicted = net.predict(data.test_images, verbose=0).argmax(axis=1)
    error = np.mean(predicted != data.test_labels) * 100
    assert error == pytest.approx(results(finished)["test_error"])


def test_a_finished_run_is_left_alone(copied: Any, capsys: Capture) -> None:
    folder, again = copied
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert again() == 0 and "is finished" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_without_its_net_is_saved_again(copied: Any, finished: Path) -> None:
    folder, again = copied
    (folder / "model.keras").unlink()
    assert again() == 0 and rows(folder) == rows(finished)
    a, b = (keras.models.load_model(path / "model.keras") for path in (finished, folder))
    for before, after in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_other_settings_are_refused(finished: Path, capsys: Capture) -> None:
    flags = ["--steps", 300, "--output-dir", finished.parent.parent, "--name", "x"]
    assert run(*flags, "--learning-rate", 0.05, "--checkpoint-every", 100) == 2
    error = capsys.readouterr().err
    for part in ("--learning-rate 0.1 there, 0.05 now", "--eval-every 100 there, 500 now"):
        assert part in error
    assert "--depth" not in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", lambda text: "{}", "as this program writes it"),
        ("results.json", lambda text: "{}", "as this program writes it"),
        ("results.json", lambda text: text.replace('"depth": 8', '"depth": 56'), "Received: 56"),
        ("metrics.csv", lambda text: "step,train_loss\nthree,1.5\n", "as this program writes it"),
        ("checkpoint", None, "does not fit this version"),
    ],
)
def test_files_that_make_no_sense(
    name: str, change: Any, message: str, copied: Any, capsys: Capture
) -> None:
    folder, again = copied
    if name != "results.json":
        (folder / "results.json").unlink()
    if change:
        (folder / name).write_text(change((folder / name).read_text()))
    else:
        arrays, state = checkpoint.load(checkpoint.list_checkpoints(folder)[0])
        arrays.pop("net/head_dense/bias")
        checkpoint.save(folder, arrays, state)
    assert again() == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error


def test_float16_s_skipped_updates_do_not_advance_the_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate drops after four updates that were made, and metrics.csv says the rate they had."""
    scaled = functools.partial(keras.optimizers.LossScaleOptimizer, initial_scale=2.0**20)
    monkeypatch.setattr(keras.optimizers, "LossScaleOptimizer", scaled)
    flags = ["--steps", 8, "--eval-every", 1, "--precision", "mixed_float16", "--batch-size", 8]
    assert run(*flags, "--output-dir", tmp_path, "--name", "half") == 0
    arrays, _ = checkpoint.load(checkpoint.list_checkpoints(tmp_path / "half/seed-0")[0])
    # The loss scaling has a count of its own, which stays at 0.
    made = max(int(value) for name, value in arrays.items() if name.endswith("/iteration"))
    skipped = 8 - made
    assert 0 < skipped < 4, "otherwise this tests nothing"
    rates = [row["learning_rate"] for row in rows(tmp_path / "half/seed-0")]
    assert rates.count(0.1) == 4 + skipped and rates == sorted(rates, reverse=True)


def play_a_gpu(patch: pytest.MonkeyPatch) -> None:
    """What only a GPU gets, XLA and several updates per execution, on the CPU that is here."""
    gpu = backends.Hardware("GPU", "a CPU that plays one")
    patch.setattr(tensorflow.BACKEND, "hardware", lambda: gpu)


def test_the_code_for_gpus_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    play_a_gpu(monkeypatch)
    flags = ["--steps", 300, "--eval-every", 100, "--checkpoint-every", 50, "--name", "gpu"]
    assert run(*flags, "--precision", "float32", "--output-dir", tmp_path) == 0
    folder = tmp_path / "gpu/seed-0"
    assert [row["step"] for row in rows(folder)] == [100, 200, 300]
    assert results(folder)["test_error"] < 45
    newest = checkpoint.list_checkpoints(folder)
    assert [path.name for path in newest] == ["step-00000300.npz", "step-00000250.npz"]
    # The first execution, of 50 updates, compiles and is not timed.
    assert checkpoint.load(newest[0])[1]["timed"] == 250
    assert capsys.readouterr().out.count("first 100 updates: ") == 1


def test_a_run_that_moves_to_a_gpu_at_an_odd_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    flags = ["--steps", 40, "--eval-every", 20, "--checkpoint-every", 20, "--output-dir", tmp_path]
    flags += ["--precision", "float32"]
    assert run(*flags, "--name", "cpu") == 0
    with monkeypatch.context() as patch:
        stop_at(17, patch)
        assert run(*flags, "--name", "moved") == 128 + signal.SIGTERM
    play_a_gpu(monkeypatch)
    capsys.readouterr()
    assert run(*flags, "--name", "moved") == 0
    out = capsys.readouterr().out
    assert "resuming at update 17 of 40" in out and "began with another device" in out
    cpu, moved = (rows(tmp_path / name / "seed-0") for name in ("cpu", "moved"))
    assert [row["step"] for row in moved] == [20, 40]
    # The same batches, crops and flips; sums in another order.
    assert moved[0]["train_loss"] == pytest.approx(cpu[0]["train_loss"], rel=0.02)
    newest = checkpoint.list_checkpoints(tmp_path / "moved/seed-0")[0]
    assert newest.name == "step-00000040.npz"
    # One update of each session is not timed.
    assert checkpoint.load(newest)[1]["timed"] == 40 - 2


def test_several_runs_are_summarised(tmp_path: Path, capsys: Capture) -> None:
    flags = ["--val-size", 0, "--output-dir", tmp_path, "--name", "x"]
    both = [*flags, "--seed", 4, "--runs", 2, "--steps", 8]
    assert run(*both) == 0
    summary = tmp_path / "x/summary.json"
    found, text = json.loads(summary.read_text()), summary.read_text()
    assert found["seeds"] == [4, 5] and found["runs"] == 2
    assert found["test_error_std"] == pytest.approx(np.std(found["test_errors"], ddof=1), abs=1e-3)
    assert rows(tmp_path / "x/seed-4")[0]["val_error"] is None
    summary.unlink()
    assert run(*both) == 0  # both are finished
    assert capsys.readouterr().out.count("seeds [4, 5]") == 2
    assert summary.read_text() == text
    assert run(*flags, "--steps", 12, "--seed", 1) == 0  # another recipe: not averaged with them
    assert json.loads(summary.read_text())["seeds"] == [1]


@pytest.mark.parametrize("rate", [1e30, 1000])
def test_a_run_that_diverges_ends(rate: float, tmp_path: Path, capsys: Capture) -> None:
    """ReLU hides the NaN of the second from the loss: the variables are checked before they are saved."""
    flags = ["--steps", 20, "--learning-rate", rate, "--output-dir", tmp_path]
    assert run(*flags, "--checkpoint-every", 5) == DIVERGED == 3
    error = capsys.readouterr().err
    assert "NaN or infinite at or before update" in error and error.count("\n") == 1
    assert not list(tmp_path.rglob("results.json")) and not list(tmp_path.rglob("model.keras"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--depth", 57], "depth=57; nearest: 56, 62"),
        (["--depth", "many"], "invalid int value: 'many'"),
        (["--batch-size", 0], "--batch-size must be 1 or more. Received: 0"),
        (["--batch-size", 5000], "--batch-size must be at most the 1700 training images"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0 and at most 1e30"),
        (["--steps", 3], "--steps must be 4 to 1000000000"),
        (["--steps", 100, "--warmup-steps", 60], "--warmup-steps must be 0 or more and below half"),
        (["--runs", 10**12], "--runs must be int <= 10000"),
        (["--val-size", 2000], "--val-size must be 0 or more and below the 2000"),
        (["--shortcut", "none"], "invalid choice: 'none'"),
        (["--model", "plain", "--shortcut", "projection"], "--shortcut must be left out"),
        (["--name", "a/b"], "--name must be a folder name"),
        (["--name", "a\nb"], r"Received: 'a\nb'"),
        (["--data-dir", "a\udcff"], "--data-dir must be printable text"),  # not UTF-8
        (["--output-dir", ""], "--output-dir must be printable text, not empty"),
        (["--output-dir", "/dev/null/x"], "the output folder must be writable"),
        (["--name", "x" * 300, "--restart"], "(File name too long)"),
        (["--wings", 2], "--wings is not a flag"),
    ],
)
def test_bad_flags(flags: list, message: str, tmp_path: Path, capsys: Capture) -> None:
    try:
        # Few steps, so that a check that is gone fails here and does not train for hours.
        code = run("--output-dir", tmp_path, "--steps", 8, *flags)
    except SystemExit as stop:  # argparse's way
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1, error
    assert not list(tmp_path.iterdir())


def test_data_of_another_name_than_the_settings_is_refused(tmp_path: Path) -> None:
    """Else its error would stand beside the paper's."""
    with pytest.raises(UserError, match="`dataset` names, cifar10. Received: synthetic"):
        trainer.train(TrainConfig(output_dir=str(tmp_path)), data=datasets.load("synthetic"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "steps", "limit"), [("synthetic", 500, 10), ("cifar10", 300, 60)]
)
def test_resnet20_learns(
    dataset: str, steps: int, limit: float, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    monkeypatch.setattr(synthetic, "SYNTHETIC_SIZES", (50_000, 10_000))
    flags = [f"--steps={steps}", f"--dataset={dataset}", f"--output-dir={tmp_path}", "--name=x"]
    if dataset == "cifar10":
        flags.append(f"--data-dir={request.getfixturevalue('data_dir')}")
    assert terminal.run(lambda: command.main(flags)) == 0
    assert results(tmp_path / "x/seed-0")["test_error"] < limit  # chance: 90


def test_what_is_wrong_with_a_later_seed_is_said_before_the_first_trains(
    tmp_path: Path, capsys: Capture
) -> None:
    flags = ["--steps", 8, "--output-dir", tmp_path, "--name", "x"]
    assert run(*flags, "--seed", 1) == 0
    capsys.readouterr()
    assert run(*flags, "--runs", 2, "--learning-rate", 0.05) == 2
    assert "seed-1 holds a run with other settings" in capsys.readouterr().err
    assert not (tmp_path / "x/seed-0").exists()


def test_restart_moves_all_runs_aside_before_the_first_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--steps", 8, "--output-dir", tmp_path, "--name", "x", "--runs", 2]
    assert run(*flags) == 0
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert run(*flags, "--restart") == 128 + signal.SIGTERM
    # So that the same command without --restart trains seed 1 too.
    found = {path.name for path in (tmp_path / "x").glob("seed-*")}
    assert found == {"seed-0", "seed-0.old-1", "seed-1.old-1"}
    assert run(*flags) == 0
    assert (tmp_path / "x/seed-1/results.json").exists()


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "x/seed-0"
    folder.mkdir(parents=True)
    (folder / "tensorboard").touch()  # a file where the folder should be
    assert run("--steps", 8, "--output-dir", tmp_path, "--name", "x") == 0
    assert "warning: the log (tensorboard) could not be written" in capsys.readouterr().out
    assert (folder / "results.json").exists()


def test_a_seed_that_another_process_finished_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    flags = ["--steps", 8, "--output-dir", tmp_path, "--name", "x"]
    load = datasets.load

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(datasets, "load", load)
        assert run(*flags) == 0  # the other process
        return load(*arguments)

    monkeypatch.setattr(datasets, "load", meanwhile)
    assert run(*flags) == 0
    assert capsys.readouterr().out.count("is finished") == 1


@pytest.mark.parametrize("runs", [1, 2])
def test_a_signal_during_the_test_of_a_seed(
    runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The seed ends as usual; that it was interrupted is said only where another would have followed."""
    known = trainer.loss_and_error

    def measure(*arguments: Any) -> tuple[float, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return known(*arguments)

    monkeypatch.setattr(trainer, "loss_and_error", measure)
    code = run("--steps", 8, "--output-dir", tmp_path, "--name", "x", "--runs", runs)
    assert (tmp_path / "x/seed-0/results.json").exists() and not (tmp_path / "x/seed-1").exists()
    error = capsys.readouterr().err
    assert (code, error) == (0, "") if runs == 1 else (code == 143 and "resumes" in error)


def test_signals_are_left_alone_in_a_thread_and_where_they_are_ignored() -> None:
    """The second is what `nohup` is for."""
    old = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor() as pool:
        assert pool.submit(lambda: Signals().__enter__()).result().received == 0
    assert signal.getsignal(signal.SIGTERM) is old
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received == 0
    finally:
        signal.signal(signal.SIGHUP, hangup)
