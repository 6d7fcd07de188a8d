"""Training for real: a small net learns, the same seed repeats, the artefacts are what they say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import train as command
from keras_resnet import cli, datasets, environment, training
from keras_resnet.config import TrainConfig

pytestmark = pytest.mark.usefixtures("small_synthetic")
SMALL = ["--depth", "8", "--dataset", "synthetic", "--val-size", "300", "--batch-size", "32"]


def run(*flags: object) -> int:
    return cli.run(lambda: command.main([*SMALL, *map(str, flags)]))


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def numbers(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows(folder)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 300 updates that several tests look at."""
    output = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "SYNTHETIC_SIZES", (2_000, 500))
        code = run("--steps", 300, "--eval-every", 100, "--output-dir", output, "--name", "small")
    assert code == 0
    return output / "small" / "seed-0"


@pytest.mark.parametrize("start", [0, 7, training.CHUNK, 100])
def test_what_fit_is_fed_is_the_stream_from_any_step_on(start: int) -> None:
    config = TrainConfig(batch_size=30, seed=3)
    # 1,000 images: a permutation ends inside a chunk, and inside a batch.
    train = np.arange(0, 2_000, 2)
    labels = np.random.default_rng(0).integers(0, 10, 2_000).astype(np.int32)
    batches = training.stream(config, labels, train, 3, start).take(2 * training.CHUNK + 5)
    for step, (index, label) in enumerate(batches, start):
        expected = train[datasets.batch_indices(3, step, len(train), 30)]
        np.testing.assert_array_equal(index, expected)
        np.testing.assert_array_equal(label, labels[expected])
        assert index.dtype == label.dtype == "int32"
    assert step == start + 2 * training.CHUNK + 4


def test_a_small_net_learns(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["test_error"] < 45  # chance: 90
    losses = [float(row["train_loss"]) for row in rows(finished)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_run_folder(finished: Path) -> None:
    assert [row["step"] for row in rows(finished)] == ["100", "200", "300"]
    assert [row["learning_rate"] for row in rows(finished)] == ["0.1", "0.01", "0.001"]
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["depth"] == 8 and config["device"]["kind"] in ("CPU", "GPU")
    assert config["class_names"] == list(datasets.SYNTHETIC_CLASSES)
    assert set(config["versions"]) >= {"keras", "tensorflow", "numpy"}
    assert list((finished / "tensorboard").glob("events.out.tfevents.*"))
    assert not list(finished.rglob(".tmp-*"))


def test_the_saved_net_scores_the_test_error(finished: Path) -> None:
    net = keras.models.load_model(finished / "model.keras")
    assert {layer.dtype_policy.name for layer in net.layers} == {"float32"}
    data = datasets.load("synthetic")
    predicted = net.predict(data.test_images, verbose=0).argmax(axis=1)
    results = json.loads((finished / "results.json").read_text())
    assert np.mean(predicted != data.test_labels) * 100 == pytest.approx(results["test_error"])


def test_a_finished_run_is_left_alone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    again = ["--steps", 300, "--eval-every", 100, "--output-dir", finished.parent.parent]
    assert run(*again, "--name", "small") == 0
    assert "is finished" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


def test_other_settings_are_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--steps", 300, "--output-dir", finished.parent.parent, "--name", "small"]
    assert run(*flags, "--learning-rate", 0.05) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in ("--learning-rate 0.1 there, 0.05 now", "--eval-every 100 there, 500 now"):
        assert part in error
    assert "--depth" not in error


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_same_seed_repeats_and_another_does_not(tmp_path: Path, precision: str) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        flags = ["--steps", 8, "--eval-every", 2, "--seed", seed, "--precision", precision]
        assert run(*flags, "--output-dir", tmp_path, "--name", name) == 0
    a, b = (numbers(tmp_path / name / "seed-1") for name in "ab")
    assert a == b
    c = numbers(tmp_path / "c" / "seed-2")
    assert [row["train_loss"] for row in a] != [row["train_loss"] for row in c]


def test_float16_scales_its_loss(tmp_path: Path) -> None:
    config = TrainConfig(depth=8, dataset="synthetic", steps=8, precision="mixed_float16")
    data = datasets.load("synthetic")
    net = training.build_net(config, data, 0, "mixed_float16")
    model = training.training_model(config, data, net, 0)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    flags = ["--steps", 8, "--precision", "mixed_float16", "--output-dir", tmp_path]
    assert run(*flags, "--name", "half") == 0


def test_the_code_for_gpus_runs_and_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XLA and several updates an execution, on the CPU that is here."""
    flags = ["--steps", 40, "--eval-every", 20, "--checkpoint-every", 20, "--precision", "float32"]
    assert run(*flags, "--output-dir", tmp_path, "--name", "cpu") == 0
    monkeypatch.setattr(environment, "device", lambda: ("GPU", "a CPU that plays one"))
    assert run(*flags, "--output-dir", tmp_path, "--name", "gpu") == 0
    cpu, gpu = (rows(tmp_path / name / "seed-0") for name in ("cpu", "gpu"))
    assert [row["step"] for row in gpu] == ["20", "40"]
    # The same batches, crops and flips; sums in another order.
    assert float(gpu[0]["train_loss"]) == pytest.approx(float(cpu[0]["train_loss"]), rel=0.02)


def test_several_runs_are_summarised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--steps", 8, "--val-size", 0, "--output-dir", tmp_path, "--name", "x", "--seed", 4]
    assert run(*flags, "--runs", 2) == 0
    summary = json.loads((tmp_path / "x" / "summary.json").read_text())
    assert summary["seeds"] == [4, 5] and summary["runs"] == 2
    assert summary["test_error_mean"] == pytest.approx(np.mean(summary["test_errors"]), abs=1e-3)
    assert summary["test_error_std"] == pytest.approx(
        np.std(summary["test_errors"], ddof=1), abs=1e-3
    )
    assert "2 runs, seeds [4, 5]" in capsys.readouterr().out
    assert rows(tmp_path / "x" / "seed-4")[0]["val_error"] == ""


def test_a_loss_that_becomes_nan_stops_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--steps", 100, "--learning-rate", 1e30, "--output-dir", tmp_path]
    assert run(*flags) == training.DIVERGED == 3
    error = capsys.readouterr().err
    assert "NaN or infinite at update" in error and error.count("\n") == 1
    assert not list(tmp_path.rglob("results.json"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--depth", 57], "depth=57; nearest: 56, 62"),
        (["--depth", "many"], "invalid int value: 'many'"),
        (["--batch-size", 0], "--batch-size must be 1 or more. Received: 0"),
        (["--batch-size", 5000], "--batch-size must be at most the 1700 training images"),
        (["--learning-rate", -1], "--learning-rate must be above 0. Received: -1"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0. Received: nan"),
        (["--weight-decay", -1], "--weight-decay must be 0 or more"),
        (["--momentum", 1], "--momentum must be 0 or more and below 1"),
        (["--steps", 3], "--steps must be 4 or more"),
        (["--steps", 100, "--warmup-steps", 60], "--warmup-steps must be 0 or more and below half"),
        (["--runs", 0], "--runs must be 1 or more"),
        (["--seed", -1], "--seed must be 0 or more"),
        (["--val-size", 2000], "--val-size must be 0 or more and below the 2000"),
        (["--dataset", "mnist"], "invalid choice: 'mnist'"),
        (["--shortcut", "none"], "invalid choice: 'none'"),
        (["--model", "plain", "--shortcut", "projection"], "--shortcut must be left out"),
        (["--name", "a/b"], "--name must be a folder name"),
        (["--output-dir", "/dev/null/x"], "the output folder must be writable"),
        (["--wings", 2], "unrecognized arguments: --wings"),
    ],
)
def test_bad_flags(
    flags: list, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = run("--output-dir", tmp_path, *flags)
    except SystemExit as stop:  # argparse's way
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1, error
    assert not list(tmp_path.rglob("metrics.csv"))


@pytest.mark.parametrize(
    ("depth", "flags", "warmup"),
    [(20, {}, 0), (110, {}, 400), (1202, {}, 400), (110, {"warmup_steps": 0}, 0),
     (20, {"warmup_steps": 7}, 7), (110, {"steps": 100}, 25)],
)  # fmt: skip
def test_default_warmup(depth: int, flags: dict, warmup: int) -> None:
    assert TrainConfig(depth=depth, **flags).warmup == warmup


@pytest.mark.slow
def test_resnet20_passes_90_percent_on_synthetic_within_500_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "SYNTHETIC_SIZES", (50_000, 10_000))
    flags = ["--dataset", "synthetic", "--steps", 500, "--output-dir", tmp_path]
    assert cli.run(lambda: command.main(list(map(str, flags)))) == 0
    results = json.loads((tmp_path / "resnet20-synthetic/seed-0/results.json").read_text())
    assert results["test_error"] < 10


@pytest.mark.slow
def test_resnet20_learns_the_real_cifar10(tmp_path: Path, data_dir: str) -> None:
    flags = ["--steps", 300, "--data-dir", data_dir, "--output-dir", tmp_path]
    assert cli.run(lambda: command.main(list(map(str, flags)))) == 0
    results = json.loads((tmp_path / "resnet20/seed-0/results.json").read_text())
    assert results["test_error"] < 60  # chance: 90


def test_a_missing_summary_comes_again_and_recipes_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--output-dir", tmp_path, "--name", "x", "--val-size", 0]
    assert run(*flags, "--steps", 8) == 0
    summary = tmp_path / "x" / "summary.json"
    before = summary.read_text()
    summary.unlink()
    assert run(*flags, "--steps", 8) == 0
    assert summary.read_text() == before
    assert run(*flags, "--steps", 12, "--seed", 1) == 0
    assert json.loads(summary.read_text())["seeds"] == [1]


@pytest.mark.parametrize("name", ["config.json", "results.json"])
def test_foreign_json_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "x" / "seed-0"
    folder.mkdir(parents=True)
    (folder / name).write_text("{}")
    assert run("--steps", 8, "--output-dir", tmp_path, "--name", "x") == 2
    error = capsys.readouterr().err
    assert "must be a file of this program" in error and error.count("\n") == 1


def test_restart_where_a_file_is_in_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "seed-0").touch()
    assert run("--steps", 8, "--output-dir", tmp_path, "--name", "x", "--restart") == 2
    error = capsys.readouterr().err
    assert "must be a folder that can be written to" in error and error.count("\n") == 1


def test_sizes_that_do_not_fit_leave_no_folder(tmp_path: Path) -> None:
    assert run("--batch-size", 5000, "--output-dir", tmp_path) == 2
    assert not list(tmp_path.iterdir())
