"""Which runs a sweep has, how far they are, what their nodes must have, and what is shown."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keras_resnet.__main__ import main
from keras_resnet.commands import sweep, terminal
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import metrics_csv
from keras_resnet.runs.run import Run, runs_of
from keras_resnet.sweep import cluster, table, task
from keras_resnet.sweep.plan import SweepRun

RESULTS = Path(__file__).resolve().parents[2] / "results"
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None or find_spec("rich") is None, reason="needs the extra [sweep]"
)


def planned(*words: str) -> list[str]:
    """Names of the runs."""
    return [str(run) for run in sweep.plan_runs(sweep.make_parser(words).parse_args(words))]


def call(*words: str) -> int:
    try:
        return terminal.run(lambda: main(["sweep", *words]))
    except SystemExit as stop:
        return int(stop.code or 0)


# --- which runs ----------------------------------------------------------------------------------


def test_every_net_with_every_seed_the_longest_first() -> None:
    words = "--model resnet plain --depth 20 56 20 --runs 2 --seed 3"
    assert planned(*words.split()) == [
        f"{model}{depth}/seed-{seed}"
        for depth in (56, 20) for model in ("resnet", "plain") for seed in (3, 4)
    ]  # fmt: skip


def test_shortcuts_are_for_the_residual_nets() -> None:
    words = ["--model", "resnet", "plain", "--shortcut", "projection", "zeropad"]
    assert planned(*words) == ["resnet20-projection/seed-0", "resnet20/seed-0", "plain20/seed-0"]


def test_several_values_name_their_runs() -> None:
    words = ["--learning-rate", "0.05", "0.1", "0.050", "--weight-decay", "1e-4", "5e-4"]
    assert planned(*words) == [
        f"resnet20-lr{rate}-wd{decay}/seed-0"
        for rate in ("0.05", "0.1")
        for decay in (0.0001, 0.0005)
    ]
    assert planned("--learning-rate", "0.05") == ["resnet20/seed-0"]  # as `train` names it
    assert planned("--name", "x", "--steps", "100", "200", "--warmup-steps", "5") == [
        "x-resnet20-steps200/seed-0", "x-resnet20-steps100/seed-0",
    ]  # fmt: skip
    names = planned("--precision", "float32", "auto", "--recipe", "fast")
    assert names == ["resnet20-fast-float32/seed-0", "resnet20-fast-auto/seed-0"]
    assert planned("--name", "x", "--depth", "20") == ["x/seed-0"]


def test_the_papers_table() -> None:
    names = planned("--preset", "paper-table")
    nets = ("resnet110", "resnet56", "plain56", "resnet20", "plain20")
    assert len(names) == 25 and names[::5] == [f"{net}/seed-0" for net in nets]
    assert len(planned("--preset", "paper-table", "--runs", "1", "--recipe", "paper", "fast")) == 10


@needs_ray
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--depth 20 57", "nearest: 56, 62"),
        ("--runs 0", "--runs must be int >= 1. Received: 0"),
        ("--momentum 0.9 2", "--momentum must be"),
        ("--dataset a/photos b/photos", "would both be trained in resnet20-photos"),
        ("--model plain --shortcut projection", "--shortcut must be left out for --model plain"),
        ("--preset paper-table --depth 20", "names the nets: leave out --model and --depth"),
        ("--cpus-per-run 1.5", "must be below 1 or whole. Received: 1.5"),
        ("--gpus-per-run nan", "must be below 1 or whole. Received: nan"),
        ("--depth 20 --depth", "expected at least one argument"),
        ("--address ray://x:1", "--address must be auto or HOST:PORT of a Ray cluster. Received: ray://x"),
        ("--address 127.0.0.1:1", "Received: 127.0.0.1:1 ("),
        ("--output-dir /dev/null/x", "could not be locked (Not a directory)"),
    ],
)  # fmt: skip
def test_wrong_flags_end_in_one_line(
    words: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*words.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and message in error


@pytest.mark.parametrize("package", ["ray", "rich"])
def test_without_ray_one_line_says_how_to_install_it(
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ray", "rich"):  # whichever of them is installed
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)  # type: ignore[arg-type]
    assert call("--dataset", "synthetic") == 2
    error = capsys.readouterr().err
    assert f"needs {package}, which is not installed" in error and "extra [sweep]" in error
    assert error.count("\n") == 1 and call("--help") == 0


# --- how far, and how long -----------------------------------------------------------------------


def run_of(**settings: Any) -> Run:
    return runs_of(TrainConfig(**settings))[0]


def begun(folder: Path, upto: int, rate: float | None = 1000.0, **settings: Any) -> SweepRun:
    """A run of 64,000 updates, its folder as training leaves it at an update."""
    run = run_of(output_dir=str(folder), **settings)
    run.folder.path.mkdir(parents=True)
    run.folder.write_config({"settings": run.settings(), "precision": "float32"})
    rows = [
        {"step": step, "learning_rate": 0.1, "train_loss": 1.0, "train_error": 20.0, "val_loss": 1.0,
         "val_error": 12.345, "images_per_second": rate}
        for step in range(500, upto + 1, 500)
    ]  # fmt: skip
    files.write_atomic(run.folder.path / "metrics.csv", metrics_csv(rows))
    return SweepRun(run)


def test_how_far_a_run_is(tmp_path: Path) -> None:
    new = SweepRun(run_of(output_dir=str(tmp_path)))
    new.look()
    assert (new.state, new.step) == ("waiting", 0) and not list(tmp_path.iterdir())
    run = begun(tmp_path, 32_000)
    run.look()
    assert (run.state, run.step, run.val_error, run.rate) == ("waiting", 32_000, 12.345, 1000.0)
    run.diverged.write_text("the loss became NaN\n")
    run.look()
    assert (run.state, run.why) == ("failed", "the loss became NaN")
    run.run.folder.write_results({"test_error": 8.5})
    run.run.folder.model_path.touch()  # without its net, `train` finishes it once more
    run.look()
    assert (run.state, run.step, run.test_error) == ("finished", 64_000, 8.5)


def test_a_folder_with_another_run_fails(tmp_path: Path) -> None:
    begun(tmp_path, 500)
    run = SweepRun(run_of(output_dir=str(tmp_path), steps=8_000))
    run.look()
    assert run.state == "failed" and "`steps` 64000 there, 8000 now" in run.why


# --- nodes ---------------------------------------------------------------------------------------


def test_what_a_node_must_have(tmp_path: Path) -> None:
    output, own = tmp_path / "output", {"data_dir": str(tmp_path), "dataset": "photos"}

    def problem(**settings: str) -> str:
        config = TrainConfig(**{"dataset": "synthetic", **settings})  # type: ignore[arg-type]
        return task.find_problem(sweep.make_job(config, "", str(output), {}))

    assert problem() == f"does not see {output}"
    with files.lock(output):
        assert problem() == "" and problem(**own) == f"has no {tmp_path}/photos"
        (tmp_path / "photos").mkdir()
        (tmp_path / "cifar10/3.0.2").mkdir(
            parents=True
        )  # as a download that was given up leaves it
        assert problem(**own) == "" and "has no" in problem(
            data_dir=str(tmp_path), dataset="cifar10"
        )
        (tmp_path / "cifar10/3.0.2/dataset_info.json").touch()
        assert problem(data_dir=str(tmp_path), dataset="cifar10") == ""
    # Nobody holds it: this is what a node finds whose file system keeps locks to itself.
    assert problem() == f"does not see the locks of other nodes in {output}"


def test_what_a_run_takes_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes: list[dict[str, float]] = []

    def slots(*words: str) -> tuple[dict[str, float], int]:
        share = sweep.choose_share(sweep.make_parser(words).parse_args(words))
        return share, cluster.count_slots(share, unfit=["id2"])

    ray = SimpleNamespace(
        cluster_resources=lambda: {name: 1.0 for node in nodes for name in node},
        nodes=lambda: [
            {"NodeID": f"id{k}", "Alive": True, "Resources": node} for k, node in enumerate(nodes)
        ],
    )
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    nodes += [
        {"CPU": 8.0, "memory": 16 * 2.0**30},
        {"CPU": 3.0},
        {"CPU": 100.0},
    ]  # the last is unfit
    assert slots() == ({"CPU": 1}, 11) and slots("--cpus-per-run=2") == ({"CPU": 2}, 5)
    assert slots("--memory-per-run=4") == ({"CPU": 1, "memory": 4 * 2**30}, 4)
    assert slots("--cpus-per-run=0") == ({}, 0)
    nodes += [{"CPU": 16.0, "GPU": 1.0}]
    assert slots() == ({"CPU": 1, "GPU": 1}, 1)
    assert slots("--gpus-per-run=0.1") == ({"CPU": 1, "GPU": 0.1}, 10)
    nodes += [{"CPU": 1.0, "TPU": 4.0}]
    assert slots("--gpus-per-run=0", "--cpus-per-run=0.25") == ({"CPU": 0.25, "TPU": 1}, 4)


def test_variables_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def variables(**share: float) -> dict[str, str]:
        return sweep.make_job(TrainConfig(dataset="synthetic"), "log", "token", share).environment

    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    assert variables(CPU=2)["TF_NUM_INTRAOP_THREADS"] == "2"
    assert "TF_FORCE_GPU_ALLOW_GROWTH" not in {**variables(GPU=1), **variables(CPU=1)}
    assert variables(GPU=0.5)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "5")
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "3")
    assert variables(CPU=2)["TF_NUM_INTRAOP_THREADS"] == "5"
    assert variables(CPU=2)["KERAS_DISTRIBUTION_NUM_PROCESSES"] == "1"


# --- what is shown -------------------------------------------------------------------------------


def test_the_table_has_one_line_per_experiment() -> None:
    """However many seeds: their states, updates, mean validation error and time left."""

    def table_of(rate: float | None) -> list[str]:
        runs = [SweepRun(run) for run in runs_of(TrainConfig(depth=110, runs=1000))]
        runs[0].state, runs[0].step, runs[0].val_error, runs[0].rate = "finished", 64_000, 7.0, rate
        runs[1].state, runs[1].step, runs[1].val_error, runs[1].rate = "running", 32_000, 9.0, rate
        return table.format_progress([*runs, SweepRun(run_of())], slots=1000).splitlines()

    heads, _, line, other, _, counts = table_of(1000.0)
    assert line.split() == [
        "resnet110", "1", "finished,", "1", "running,", "998", "waiting", "96,000/64,000,000", "8.00",
        "94.7", "days",
    ]  # fmt: skip
    assert other.split() == ["resnet20", "1", "waiting", "0/64,000", "-", "-"]
    assert counts.startswith("1 finished, 1 running, 999 waiting; at least 2 h 17 min left")
    assert max(map(len, (heads, line, other))) <= 100


def test_the_time_left_is_at_least_that_of_the_longest_run() -> None:
    runs = [SweepRun(run, rate=1000.0) for run in runs_of(TrainConfig(runs=3))]
    runs[0].state = "finished"
    assert "at least 4 h 33 min left" in table.format_progress(runs, 1)
    assert "at least 2 h 17 min left" in table.format_progress(runs, 25)


def test_the_end_is_the_reports_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(RESULTS / "resnet20-fast-0.2", tmp_path / "x")
    given = {"recipe": "fast-0.2", "name": "x", "output_dir": str(tmp_path), "runs": 2}
    runs = [SweepRun(run) for run in runs_of(TrainConfig(**given))]
    for run in runs:
        run.run.folder.model_path.touch()
        run.look()
    assert sweep.conclude(runs, received=2) == 0  # the signal came after the last run
    printed = capsys.readouterr()
    assert "resnet20-fast  8.74 ± 0.25" in printed.out and printed.err == ""
    assert " 8.75 " in printed.out and " 8.51 ± 0.22 " in printed.out
    runs[1].state = "failed"
    assert sweep.conclude(runs, received=2) == sweep.FAILED
    assert "error: 1 of 2 runs failed" in capsys.readouterr().err
