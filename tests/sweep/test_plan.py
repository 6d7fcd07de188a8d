"""Which runs a sweep has, how far they are, what their nodes must have, and what is shown."""

from __future__ import annotations

import io
import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import filelock
import pytest

from keras_resnet.__main__ import main
from keras_resnet.commands import flags, sweep, terminal
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import metrics_csv
from keras_resnet.runs.run import Run, runs_of
from keras_resnet.sweep import plan, table, task
from keras_resnet.sweep.plan import SweepRun

RESULTS = Path(__file__).resolve().parents[2] / "results"
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None or find_spec("rich") is None, reason="needs the extra [sweep]"
)


def planned(*words: str) -> tuple[list[str], list[str]]:
    """Names of the runs, and what was left out."""
    runs, left_out = sweep._runs(sweep._parser().parse_args(words))
    return [str(run) for run in runs], left_out


def call(*words: str) -> int:
    try:
        return terminal.run(lambda: main(["sweep", *words]))
    except SystemExit as stop:
        return int(stop.code or 0)


# --- which runs ----------------------------------------------------------------------------------


def test_every_net_with_every_seed_the_longest_first() -> None:
    words = (
        "--model",
        "resnet",
        "plain",
        "--depth",
        "20",
        "56",
        "20",
        "--runs",
        "2",
        "--seed",
        "3",
    )
    names, left_out = planned(*words)
    assert names == [
        f"{model}{depth}/seed-{seed}"
        for depth in (56, 20) for model in ("resnet", "plain") for seed in (3, 4)
    ]  # fmt: skip
    assert left_out == []


def test_plain_nets_have_no_shortcut() -> None:
    names, left_out = planned("--model", "resnet", "plain", "--shortcut", "projection", "zeropad")
    assert names == ["resnet20-projection/seed-0", "resnet20/seed-0", "plain20/seed-0"]
    assert left_out == ["plain20 with projection: it has no shortcuts"]


def test_numbers_take_several_values_and_name_their_runs() -> None:
    words = ["--learning-rate", "0.05", "0.1", "0.050", "--weight-decay", "1e-4", "5e-4"]
    assert planned(*words)[0] == [
        f"resnet20-lr{rate}-wd{decay}/seed-0"
        for rate in ("0.05", "0.1")
        for decay in (0.0001, 0.0005)
    ]
    assert planned("--learning-rate", "0.05")[0] == ["resnet20/seed-0"]  # as `train` names it
    assert planned("--name", "x", "--steps", "100", "200", "--warmup-steps", "5")[0] == [
        "x-resnet20-steps200/seed-0", "x-resnet20-steps100/seed-0",
    ]  # fmt: skip


def test_the_papers_table() -> None:
    names, _ = planned("--preset", "paper-table")
    nets = ("resnet110", "resnet56", "plain56", "resnet20", "plain20")
    assert len(names) == 25 and names[::5] == [f"{net}/seed-0" for net in nets]
    assert (
        len(planned("--preset", "paper-table", "--runs", "1", "--recipe", "paper", "fast")[0]) == 10
    )


def test_runs_that_would_share_a_folder_get_names() -> None:
    assert planned("--precision", "float32")[0] == ["resnet20/seed-0"]
    names, _ = planned("--precision", "float32", "auto", "--recipe", "fast")
    assert names == ["resnet20-fast-float32/seed-0", "resnet20-fast-auto/seed-0"]
    assert planned("--name", "x", "--depth", "20")[0] == ["x/seed-0"]


@needs_ray
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--depth", "20", "57"], "nearest: 56, 62"),
        (["--runs", "0"], "--runs must be int >= 1. Received: 0"),
        (["--momentum", "0.9", "2"], "--momentum must be"),
        (
            ["--model", "plain", "--shortcut", "projection"],
            "nothing is left to train: plain20 with",
        ),
        (["--preset", "paper-table", "--depth", "20"], "names the nets; leave out --depth"),
        (["--cpus-per-run", "1.5"], "must be below 1 or whole. Received: 1.5"),
        (["--gpus-per-run", "nan"], "must be below 1 or whole. Received: nan"),
        (["--depth", "20", "--depth"], "expected at least one argument"),
        (["--address", "ray://x:1"], "--address must be auto or HOST:PORT. Received: ray://x:1"),
        (["--address", "127.0.0.1:1"], "no Ray cluster could be joined at 127.0.0.1:1 ("),
        (["--output-dir", "/dev/null/x"], "could not be written"),
    ],
)
def test_wrong_flags_end_in_one_line(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*words) == 2
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


def test_flags_give_the_same_settings_again() -> None:
    config = TrainConfig(
        model="plain",
        depth=56,
        steps=100,
        learning_rate=0.05,
        name="a b",
        output_dir="/x y",
        seed=7,
    )
    words = flags.flags_of(config)
    assert "--name=a b" in words and "--depth=56" in words and len(words) == 7
    parser = flags.ArgumentParser()
    flags.add_flags(parser, TrainConfig)
    assert flags.settings_from(parser.parse_args(words), TrainConfig) == config
    assert flags.flags_of(TrainConfig()) == []


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
    assert run.hours_left({}) == pytest.approx(32_000 * 128 / 1000 / 3600)
    run.diverged.write_text("the loss became NaN\n")
    run.look()
    assert (run.state, run.why) == ("failed", "the loss became NaN")
    run.run.folder.write_results({"test_error": 8.5})
    run.look()
    assert (run.state, run.step, run.test_error) == ("finished", 64_000, 8.5)
    assert run.hours_left({}) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 8_000}, "`steps` 64000 there, 8000 now"),
        ({"precision": "mixed_float16"}, "precision"),
    ],
)
def test_a_folder_with_another_run_fails(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    begun(tmp_path, 500)
    run = SweepRun(run_of(output_dir=str(tmp_path), **settings))
    run.look()
    assert run.state == "failed" and message in run.why


def test_rates_are_those_of_runs_in_the_folder(tmp_path: Path) -> None:
    for name, rate in (("a", 900.0), ("b", 1000.0), ("c", 1300.0), ("d", None)):
        begun(tmp_path, 500, rate, name=name)
    assert plan.known_rates(tmp_path) == {("resnet", 20, "zeropad", 128): 1000.0}
    assert plan.known_rates(tmp_path / "nowhere") == {}
    (tmp_path / "a/seed-0/config.json").write_text("damaged")
    assert plan.known_rates(tmp_path) == {("resnet", 20, "zeropad", 128): 1150.0}


def test_slots() -> None:
    nodes = [{"CPU": 8.0, "GPU": 8.0, "memory": 16e9}, {"CPU": 3.0}, {"TPU": 4.0, "CPU": 1.0}]
    assert plan.count_slots(nodes, {"CPU": 1}) == 12
    assert plan.count_slots(nodes, {"CPU": 2, "GPU": 1}) == 4
    assert plan.count_slots(nodes, {"CPU": 0.25, "TPU": 1}) == 4
    assert plan.count_slots(nodes, {"CPU": 1, "memory": 4e9}) == 4
    assert plan.count_slots([{"CPU": 16.0, "GPU": 1.0}], {"CPU": 1, "GPU": 0.1}) == 10
    assert plan.count_slots(nodes, {"CPU": 16}) == 0


# --- nodes ---------------------------------------------------------------------------------------


def test_what_a_run_takes_of_a_node() -> None:
    def share(*words: str, **node: float) -> dict[str, float]:
        return sweep._share(sweep._parser().parse_args(words), [{"CPU": 8.0, **node}])

    assert share() == {"CPU": 1} and share(GPU=2.0) == {"CPU": 1, "GPU": 1}
    assert share(TPU=4.0) == {"CPU": 1, "TPU": 1} and share("--tpus-per-run=0", TPU=4.0) == {
        "CPU": 1
    }
    assert share("--memory-per-run=1.5", "--cpus-per-run=2") == {"CPU": 2, "memory": 1.5 * 2**30}


def test_what_a_node_must_have(tmp_path: Path) -> None:
    token, data = tmp_path / "token", tmp_path / "cifar10"

    def problem(folder: Path | None = None) -> str:
        path = str(folder) if folder else None
        return task.problem(
            {"command": [], "log": "", "token": str(token), "environment": {}, "data": path}
        )

    assert problem() == f"does not see {tmp_path}"
    token.touch()
    # Nobody holds it: this is what a node finds whose file system keeps locks to itself.
    assert problem() == f"does not see the locks of other nodes in {tmp_path}"
    with filelock.FileLock(token):
        assert problem() == "" and problem(data) == f"has no data set in {data}"
        (data / "3.0.2").mkdir(parents=True)
        (data / "3.0.2/dataset_info.json").touch()
        assert problem(data) == ""


def test_variables_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def variables(**share: float) -> dict[str, str]:
        return sweep._job(SweepRun(run_of(dataset="synthetic")), Path("token"), share)[
            "environment"
        ]

    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    assert variables(CPU=2)["TF_NUM_INTRAOP_THREADS"] == "2"
    assert "TF_FORCE_GPU_ALLOW_GROWTH" not in variables(GPU=1)
    assert variables(GPU=0.5)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "5")
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "3")
    assert variables(CPU=2)["TF_NUM_INTRAOP_THREADS"] == "5"
    assert variables(CPU=2)["KERAS_DISTRIBUTION_NUM_PROCESSES"] == "1"


# --- what is shown -------------------------------------------------------------------------------

RATES = {("resnet", 110, "zeropad", 128): 1000.0}


def shown_runs() -> list[SweepRun]:
    def run(seed: int, state: Any, step: int = 0, **values: Any) -> SweepRun:
        rate = 1000.0 if step else None
        values = {"val_error": 12.345 if step else None, **values}
        return SweepRun(run_of(depth=110, seed=seed), state, step=step, rate=rate, **values)

    return [
        run(0, "finished", 64_000, test_error=6.61),
        run(1, "running", 32_000, host="gpu-node-17.europe-west4.cluster.example.org"),
        run(2, "running", host="b"),
        run(3, "held", 500),
        run(4, "waiting"),
        run(5, "failed", 500),
    ]


def test_the_live_table_fits_80_columns_whatever_the_host_is_called() -> None:
    console = pytest.importorskip("rich.console", reason="needs the extra [sweep]")
    screen = console.Console(width=80, record=True, file=io.StringIO())
    live = table.LiveTable(shown_runs(), RATES, 2)
    screen.print(live.table(40))
    lines = screen.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    (line,) = [line for line in lines if "32,000/64,000" in line]
    words = ["resnet110/seed-1", "gpu-node-17.eur…", "32,000/64,000", "12.35", "1,000", "68", "min"]
    assert line.split() == words
    counts = "1 of 6 finished, 2 running, 1 held, 1 failed, 1 waiting; at least 3 h"
    assert counts in " ".join(lines)
    screen.print(live.table(3))
    text = screen.export_text()
    assert text.count("resnet110") == 3 and "3 more are not shown" in text


def test_lines_say_how_far_all_is(capsys: pytest.CaptureFixture[str]) -> None:
    runs = shown_runs()
    lines = table.Lines(runs, {}, 2)
    lines.event("resnet110/seed-4: begins on b")
    runs[1].step, runs[2].step = 33_000, 7_000  # a tenth is 6,400
    lines.refresh()
    lines.refresh()
    begins, update = capsys.readouterr().out.splitlines()
    counts = "(1 of 6 finished, 2 running, 1 held, 1 failed, 1 waiting)"
    assert begins == f"resnet110/seed-4: begins on b {counts}"
    assert update == f"resnet110/seed-2: update 7,000/64,000 {counts}"


def test_the_plan_has_one_line_per_experiment() -> None:
    runs = [SweepRun(run) for run in runs_of(TrainConfig(depth=110, runs=1000))]
    runs[0].state, runs[1].step = "finished", 500
    lines = table.plan_table([*runs, SweepRun(run_of())], RATES).splitlines()
    assert len(lines) == 4 and lines[2].split()[:7] == [
        "resnet110", "1", "finished,", "1", "begun,", "998", "waiting",
    ]  # fmt: skip


def finished_runs(tmp_path: Path) -> list[SweepRun]:
    """Two seeds of the repository's own results, in another folder."""
    shutil.copytree(RESULTS / "resnet20-fast-0.2", tmp_path / "resnet20-fast")
    runs = []
    for seed in (0, 1):
        saved = json.loads((RESULTS / f"resnet20-fast-0.2/seed-{seed}/config.json").read_text())
        known = {
            k: v for k, v in saved["settings"].items() if k in TrainConfig.__dataclass_fields__
        }
        changes = {
            "name": "resnet20-fast",
            "output_dir": str(tmp_path),
            "data_dir": None,
            "runs": 1,
        }
        known |= changes | {"recipe": "fast-0.2"}
        runs.append(SweepRun(run_of(**known)))
        runs[-1].look()
    return runs


def test_the_end_is_the_reports_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = finished_runs(tmp_path)
    assert sweep._conclude(runs, received=2) == 0  # the signal came after the last run
    printed = capsys.readouterr()
    assert "resnet20-fast  8.74 ± 0.25" in printed.out and printed.err == ""
    assert " 8.75 " in printed.out and " 8.51 ± 0.22 " in printed.out
    runs[1].state = "failed"
    assert sweep._conclude(runs, received=2) == sweep.FAILED
    assert "error: 1 of 2 runs failed" in capsys.readouterr().err
