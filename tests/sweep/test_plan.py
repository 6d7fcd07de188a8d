"""Which runs a sweep has and how long they take, and what is told of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from keras_resnet.__main__ import main
from keras_resnet.commands import flags, sweep, terminal
from keras_resnet.console import duration
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import metrics_csv
from keras_resnet.sweep import drive, plan, run, table
from keras_resnet.sweep.plan import Run, Standing

RESULTS = Path(__file__).resolve().parents[2] / "results"


def runs_of(*words: str) -> tuple[list[str], list[str]]:
    """Names of the runs, and what was left out."""
    found, left_out = sweep._runs(sweep._parser().parse_args(words))
    return [one.name for one in found], left_out


def call(*words: str) -> int:
    try:
        return terminal.run(lambda: main(["sweep", *words]))
    except SystemExit as stop:
        return int(stop.code or 0)


# --- which runs ----------------------------------------------------------------------------------


def test_every_net_with_every_seed() -> None:
    names, left_out = runs_of(
        "--model", "resnet", "plain", "--depth", "20", "56", "20", "--runs", "2", "--seed", "3"
    )
    assert names == [
        f"{model}{depth} seed {seed}"
        for model in ("resnet", "plain") for depth in (20, 56) for seed in (3, 4)
    ]  # fmt: skip
    assert left_out == []


def test_plain_nets_have_no_shortcut() -> None:
    names, left_out = runs_of("--model", "resnet", "plain", "--shortcut", "projection", "zeropad")
    assert names == ["resnet20-projection seed 0", "resnet20 seed 0", "plain20 seed 0"]
    assert left_out == ["plain20 with projection: it has no shortcuts"]


def test_the_papers_table() -> None:
    names, _ = runs_of("--preset", "paper-table")
    assert len(names) == 25 and names[::5] == [
        f"{net} seed 0" for net in ("resnet20", "resnet56", "resnet110", "plain20", "plain56")
    ]
    assert (
        len(runs_of("--preset", "paper-table", "--runs", "1", "--recipe", "paper", "fast")[0]) == 10
    )


def test_runs_that_would_share_a_folder_get_names() -> None:
    assert runs_of("--precision", "float32")[0] == ["resnet20 seed 0"]
    names, _ = runs_of("--precision", "float32", "auto", "--recipe", "fast")
    assert names == ["resnet20-fast-float32 seed 0", "resnet20-fast-auto seed 0"]
    assert runs_of("--name", "x", "--depth", "20")[0] == ["x seed 0"]
    assert runs_of("--name", "x", "--depth", "20", "32")[0] == [
        "x-resnet20 seed 0",
        "x-resnet32 seed 0",
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--depth", "20", "57"], "nearest: 56, 62"),
        (["--runs", "0"], "--runs must be 1 or more. Received: 0"),
        (
            ["--model", "plain", "--shortcut", "projection"],
            "nothing is left to train: plain20 with",
        ),
        (["--preset", "paper-table", "--depth", "20"], "names the nets; leave out --depth"),
        (["--cpus-per-run", "0"], "must be above 0. Received: 0"),
        (["--cpus-per-run", "1.5"], "must be whole where it is above 1. Received: 1.5"),
        (["--gpus-per-run", "nan"], "must be a number from 0 to 10000. Received: nan"),
        (["--depth", "20", "--depth"], "expected at least one argument"),
        (["--address", "ray://x:1"], "--address must be auto or HOST:PORT. Received: ray://x:1"),
        (
            ["--address", "127.0.0.1:1"],
            "no Ray cluster could be joined at 127.0.0.1:1 (",
        ),
        (["--address", "127.0.0.1:99999"], "no Ray cluster could be joined at 127.0.0.1:99999 ("),
        (["--output-dir", "/dev/null/x"], "the output folder must be writable"),
    ],
)
def test_wrong_flags_end_in_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("ray", "rich"):
        if find_spec(package) is None:
            pytest.skip("needs requirements-sweep.txt")
    assert call(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and told in error


@pytest.mark.parametrize("package", ["ray", "rich"])
def test_without_ray_one_line_says_how_to_install_it(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ray", "rich"):  # whichever of them is installed
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)  # type: ignore[arg-type]
    assert call("--dataset", "synthetic") == 2
    error = capsys.readouterr().err
    assert (
        f"needs {package}, which is not installed: pip install -r requirements-sweep.txt" in error
    )
    assert error.count("\n") == 1
    assert call("--help") == 0


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


def begin(folder: Path, upto: int = 0, rate: float | None = 1000.0, **changes: Any) -> Run:
    """A run of 64,000 updates with seed 0, its folder as training leaves it at an update."""
    member = Run(TrainConfig(output_dir=str(folder), **changes))
    member.folder.path.mkdir(parents=True)
    settings = {**member.config.settings(), "depth": 20}
    member.folder.write_config({"settings": settings, "precision": "float32"})
    rows = [
        {"step": step, "learning_rate": 0.1, "train_loss": 1.0, "train_error": 20.0, "val_loss": 1.0,
         "val_error": 12.345, "images_per_second": rate}
        for step in range(500, upto + 1, 500)
    ]  # fmt: skip
    files.write_atomic(member.folder.path / "metrics.csv", metrics_csv(rows))
    return member


def test_how_far_a_run_is(tmp_path: Path) -> None:
    assert plan.standing(Run(TrainConfig(output_dir=str(tmp_path)))) == Standing("new")
    member = begin(tmp_path, 32_000)
    assert plan.standing(member) == Standing("begun", 32_000, 12.345, 1000.0)
    member.folder.write_results({"test_error": 8.5, "images_per_second": 900.0})
    assert plan.standing(member) == Standing("finished", 64_000, 12.345, 900.0, 8.5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 8_000}, "`steps` 64000 there, 8000 now"),
        ({"precision": "mixed_float16"}, "precision"),
    ],
)
def test_a_folder_with_another_run_is_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    begin(tmp_path, 500)
    at = plan.standing(Run(TrainConfig(output_dir=str(tmp_path), **changes)))
    assert at.state == "refused" and told in at.why


def test_hours() -> None:
    member = Run(TrainConfig())
    assert plan.hours_left(member, Standing("new"), None) is None
    assert plan.hours_left(member, Standing("new"), 1000.0) == pytest.approx(64_000 * 128 / 3.6e6)
    half = Standing("begun", 32_000, rate=500.0)
    assert plan.hours_left(member, half, 1000.0) == pytest.approx(32_000 * 128 / 500 / 3600)
    assert plan.hours_left(member, Standing("finished"), None) == 0


def test_rates_are_those_of_runs_in_the_folder(tmp_path: Path) -> None:
    for name, rate in (("a", 900.0), ("b", 1000.0), ("c", 1300.0), ("d", None)):
        begin(tmp_path, 500, rate, name=name)
    assert plan.known_rates(tmp_path) == {("resnet", 20, "zeropad", 128): 1000.0}
    assert plan.known_rates(tmp_path / "nowhere") == {}
    (tmp_path / "a/seed-0/config.json").write_text("torn")
    assert plan.known_rates(tmp_path) == {("resnet", 20, "zeropad", 128): 1150.0}


def test_the_longest_begin_first() -> None:
    runs = [
        Run(TrainConfig(depth=depth, recipe=recipe))
        for recipe in ("fast", "paper")
        for depth in (20, 110)
    ]
    order = [(r.config.recipe, r.config.depth) for r in plan.longest_first(runs)]
    assert order == [("paper", 110), ("fast", 110), ("paper", 20), ("fast", 20)]


def test_makespan() -> None:
    assert plan.makespan([], 3) == 0
    assert plan.makespan([4, 3, 3, 2], 1) == 12
    assert plan.makespan([2, 3, 3, 4], 2) == 6
    assert plan.makespan([1, 2], 8) == 2


def test_slots() -> None:
    nodes = [{"CPU": 8.0, "GPU": 8.0}, {"CPU": 3.0}, {"memory": 1.0}]
    assert plan.slots(nodes, 1, 0) == 11
    assert plan.slots(nodes, 1, 1) == 8
    assert plan.slots(nodes, 2, 1) == 4
    assert plan.slots(nodes, 2, 0) == 5
    assert plan.slots([{"CPU": 16.0, "GPU": 1.0}], 1, 0.1) == 10
    assert plan.slots(nodes, 16, 0) == 0


def test_the_extrapolation_in_the_docs() -> None:
    """docs/sweep.md: the paper's table in N slots, from the rates of short runs."""
    text = (RESULTS.parent / "docs/sweep.md").read_text()
    runs_dir = RESULTS.parent / "benchmarks/runs"

    def rate(name: str) -> float:
        return json.loads((runs_dir / name / "seed-0/results.json").read_text())[
            "images_per_second"
        ]

    rates = [rate("resnet20-8k"), rate("resnet56-8k"), rate("resnet56-8k") * 244 / 516]
    rates += [rate("plain20-8k"), rate("plain56-8k")]
    assert re.findall(r"^\| (?:ResNet|Plain)-\d+ \| ([\d.]+) ", text, re.M) == [
        f"{r:.1f}" for r in rates
    ]
    for recipe in ("paper", "fast"):
        runs, _ = sweep._runs(
            sweep._parser().parse_args(["--preset", "paper-table", "--recipe", recipe])
        )
        known = {plan.net_of(r.config): rate for r, rate in zip(runs[::5], rates, strict=True)}
        hours = [
            plan.hours_left(r, Standing("new"), known[plan.net_of(r.config)]) or 0 for r in runs
        ]
        (line,) = re.findall(rf"^\| hours, recipe `{recipe}` \| (.*) \|$", text, re.M)
        assert line.split(" | ") == [f"{plan.makespan(hours, n):.0f}" for n in (1, 2, 4, 8, 16, 25)]


# --- nodes ---------------------------------------------------------------------------------------


def job(token: Path, *data: Path) -> run.Job:
    return {
        "command": [], "root": None, "log": "", "token": str(token), "data": [str(d) for d in data],
        "environment": {}, "threads": 2, "share": False,
    }  # fmt: skip


def test_what_a_node_must_see(tmp_path: Path) -> None:
    token = tmp_path / "token"
    assert run.unfit(job(token)) == f"does not see {tmp_path}"
    token.touch()
    # Nobody holds it: so would a node see it whose file system has locks of its own.
    assert run.unfit(job(token)) == f"does not see the locks of other nodes in {tmp_path}"
    token.unlink()
    with files.held_file(token):
        assert run.unfit(job(token)) == ""
        data = tmp_path / "cifar10"
        assert run.unfit(job(token, data)) == f"has no data set in {data}"
        (data / "3.0.2").mkdir(parents=True)
        (data / "3.0.2/dataset_info.json").touch()
        assert run.unfit(job(token, data)) == ""
    assert not token.exists()


def test_the_users_threads_have_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "somewhere")
    made = run._environment(job(Path("token")))
    assert made["TF_NUM_INTRAOP_THREADS"] == "2" and "RAY_ADDRESS" not in made
    assert "TF_FORCE_GPU_ALLOW_GROWTH" not in made
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in made
    one: run.Job = {**job(Path("t")), "environment": {"TF_NUM_INTRAOP_THREADS": "5"}, "share": True}
    made = run._environment(one)
    assert made["TF_NUM_INTRAOP_THREADS"] == "5" and made["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert made["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


# --- what is shown -------------------------------------------------------------------------------


def entry(state: drive.State, at: Standing, seed: int = 0, **changes: Any) -> drive.Entry:
    config = TrainConfig(depth=110, seed=seed, **changes)
    return drive.Entry(
        Run(config), job(Path("token")), at, state, node="node-a" * (state == "running")
    )


ENTRIES = [
    entry("finished", Standing("finished", 64_000, 7.5, 900.0, 6.61)),
    entry("running", Standing("begun", 32_000, 12.345, 1000.0), 1),
    entry("running", Standing("new"), 2),
    entry("held", Standing("begun", 500, 40.0, 1000.0), 3),
    entry("waiting", Standing("new"), 4),
    entry("failed", Standing("begun", 500), 5),
]
RATES = {("resnet", 110, "zeropad", 128): 1000.0}


def test_the_live_table_fits_80_columns() -> None:
    console = pytest.importorskip("rich.console", reason="needs requirements-sweep.txt")
    screen = console.Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    screen.print(table.render(ENTRIES, RATES, 2, 40))
    lines = screen.export_text().splitlines()
    screen.file.close()
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    (running,) = [line for line in lines if "32,000/64,000" in line]
    assert running.split() == [
        "resnet110", "1", "node-a", "32,000/64,000", "12.35", "1,000", "68", "min"
    ]  # fmt: skip
    assert lines[-1].startswith(
        "1 of 6 finished, 2 running, 1 held, 1 waiting, 1 failed; about 4 h"
    )


def test_a_terminal_that_is_closed_ends_no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich.live", reason="needs requirements-sweep.txt")
    keeper, terminal_end = os.openpty()
    with open(terminal_end, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with table.watching(RATES, 2) as watcher:
            watcher.refresh(ENTRIES)
            os.close(keeper)
            watcher.event("stopping")
            watcher.refresh(ENTRIES)
        # Else nothing was written, and the test would prove nothing.
        assert os.path.samestat(os.fstat(stdout.fileno()), os.stat(os.devnull))
        monkeypatch.undo()


def test_a_small_terminal_shows_what_moves() -> None:
    console = pytest.importorskip("rich.console", reason="needs requirements-sweep.txt")
    with open("/dev/null", "w") as nowhere:
        screen = console.Console(width=80, record=True, file=nowhere)
        screen.print(table.render(ENTRIES, RATES, 2, 3))
        text = screen.export_text()
    assert (
        text.count("resnet110") == 3 and "waiting  " not in text and "3 more are not shown" in text
    )


def test_counts() -> None:
    left = "; about 4 h 32 min left"  # 2.28 + 2.26 hours on the slot that ends last
    assert table.counts(ENTRIES, RATES, 2).endswith(left)
    assert "left" not in table.counts(ENTRIES, {}, 2)
    assert duration(30) == "30 s" and duration(5_400) == "1 h 30 min"
    assert duration(100 * 3600) == "4.2 days"


def finished_entries(tmp_path: Path) -> list[drive.Entry]:
    """Two seeds of the repository's own results, in another folder."""
    shutil.copytree(RESULTS / "resnet20-fast", tmp_path / "resnet20-fast")
    entries = []
    for seed in (0, 1):
        saved = json.loads((RESULTS / f"resnet20-fast/seed-{seed}/config.json").read_text())
        name, output = "resnet20-fast", str(tmp_path)
        settings = {**saved["settings"], "name": name, "output_dir": output, "data_dir": None}
        known = {k: v for k, v in settings.items() if k in TrainConfig.__dataclass_fields__}
        member = Run(TrainConfig(**known))
        entries.append(drive.Entry(member, job(tmp_path), plan.standing(member), "finished"))
    return entries


def test_a_signal_after_the_last_run_has_ended_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = finished_entries(tmp_path)
    assert sweep._conclude(entries, received=2) == 0
    assert capsys.readouterr().err == ""
    entries[1].state = "failed"
    assert sweep._conclude(entries, received=2) == sweep.FAILED
    assert "error: 1 of 2 runs failed" in capsys.readouterr().err


def test_the_end_is_the_reports_table(tmp_path: Path) -> None:
    """Of the repository's own results: they stand as they do in the report."""
    lines = table.results(finished_entries(tmp_path)).splitlines()
    assert lines[0].split("  ")[0] == "model"
    assert "8.74 ± 0.25" in lines[2] and "8.75" in lines[2] and "8.51 ± 0.22" in lines[2]
    assert lines[3].startswith("all rows: shortcut zeropad, steps 16,000, dataset cifar10")
