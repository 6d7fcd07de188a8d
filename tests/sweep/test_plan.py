"""Which runs a sweep has, how far they are, what their nodes must have, and what is shown."""

import shutil
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from keras_resnet.commands import sweep
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.run import runs_of
from keras_resnet.sweep import cluster, table, task
from keras_resnet.sweep.plan import SweepRun
from tests.helpers import REPOSITORY

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None or find_spec("rich") is None, reason="needs the extra [sweep]"
)


def planned(*words):
    """Names of the runs."""
    return [str(run.run) for run in sweep.asked_runs(sweep.make_parser(words).parse_args(words))]


def test_every_net_with_every_seed_the_longest_first():
    words = "--model resnet plain --depth 20 56 20 --runs 2 --seed 3"
    assert planned(*words.split()) == [
        f"{model}{depth}/seed-{seed}"
        for depth in (56, 20) for model in ("resnet", "plain") for seed in (3, 4)
    ]  # fmt: skip
    words = "--model resnet plain --shortcut projection zeropad"  # plain nets have none
    names = ["resnet20-projection/seed-0", "resnet20/seed-0", "plain20/seed-0"]
    assert planned(*words.split()) == names


def test_several_values_name_their_runs():
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


def test_the_papers_table():
    names = planned("--preset", "paper-table")
    nets = ("resnet110", "resnet56", "plain56", "resnet20", "plain20")
    assert len(names) == 25 and names[::5] == [f"{net}/seed-0" for net in nets]
    assert len(planned("--preset", "paper-table", "--runs", "1", "--recipe", "paper", "fast")) == 10


@needs_ray
def test_wrong_flags_end_in_one_line(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, message in (
        ("--dataset a/photos b/photos", "resnet20-photos would be the name of two experiments"),
        ("--model plain --shortcut projection", "--shortcut must be left out for --model plain"),
        ("--preset paper-table --depth 20", "names the nets: leave out --model and --depth"),
        ("--gpus-per-run nan", "must be below 1 or whole. Received: nan"),
        ("--address ray://x:1", "--address must be auto or HOST:PORT of a Ray cluster. Received: ray://x"),
        ("--address 127.0.0.1:1", "Received: 127.0.0.1:1 ("),
    ):  # fmt: skip
        assert message in refused("sweep", *words.split())


def test_without_ray_one_line_says_how_to_install_it(monkeypatch, refused, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    error = refused("sweep", "--dataset", "synthetic")
    assert "needs ray, which is not installed" in error and "[sweep]" in error


def run_of(**settings):
    return runs_of(TrainConfig(**settings))[0]


def test_how_far_a_run_is(tmp_path):
    """By its folder, as training leaves it."""
    run = SweepRun(run_of(output_dir=str(tmp_path)))
    run.look()
    assert (run.state, run.step) == ("waiting", 0) and not list(tmp_path.iterdir())
    folder = run.run.folder
    folder.path.mkdir(parents=True)
    folder.write_config({"settings": run.run.settings(), "precision": "float32"})
    row = {"step": 32_000, "val_error": 12.345, "images_per_second": 1000.0}
    folder.write_metrics([row])
    run.look()
    assert (run.state, run.step, run.val_error, run.rate) == ("waiting", 32_000, 12.345, 1000.0)
    run.diverged.write_text("the loss became NaN\n")
    run.look()
    assert (run.state, run.why) == ("failed", "the loss became NaN")
    folder.write_results({"test_error": 8.5})
    folder.model_path.touch()  # without its net, `train` finishes it once more
    run.look()
    assert (run.state, run.step, run.test_error) == ("finished", 64_000, 8.5)
    other = SweepRun(run_of(output_dir=str(tmp_path), steps=8_000))
    other.look()
    assert other.state == "failed" and "`steps` 64000 there, 8000 now" in other.why


def test_what_a_node_must_have(tmp_path):
    output, own = tmp_path / "output", {"data_dir": str(tmp_path), "dataset": "photos"}

    def problem(**settings):
        run = run_of(**{"dataset": "synthetic", "output_dir": str(output), **settings})
        return task.find_problem(sweep.make_job(SweepRun(run), {}))

    assert problem() == f"does not see {output}"
    with files.lock(output):
        assert problem() == "" and problem(**own) == f"has no {tmp_path}/photos"
        (tmp_path / "photos").mkdir()
        assert problem(**own) == ""
        cifar = {"data_dir": str(tmp_path), "dataset": "cifar10"}
        (tmp_path / "cifar10/3.0.2").mkdir(parents=True)  # as a given up download leaves it
        assert "has no" in problem(**cifar)
        (tmp_path / "cifar10/3.0.2/dataset_info.json").touch()
        assert problem(**cifar) == ""
    output.mkdir()
    (output / "lock").touch()
    # Nobody holds it: this is what a node finds whose file system keeps locks to itself.
    assert problem() == f"does not see the locks of other nodes in {output}"


def test_what_a_run_takes_of_a_node(monkeypatch):
    nodes = []

    def slots(*words):
        share = sweep.choose_share(sweep.make_parser(words).parse_args(words))
        return share, cluster.count_slots(share, unfit=["id2"])

    ray = SimpleNamespace(
        cluster_resources=lambda: {name: 1.0 for node in nodes for name in node},
        nodes=lambda: [
            {"NodeID": f"id{k}", "Alive": True, "Resources": node} for k, node in enumerate(nodes)
        ],
    )
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    nodes += [{"CPU": 8.0, "memory": 2.0**34}, {"CPU": 3.0}, {"CPU": 100.0}]  # the last is unfit
    assert slots() == ({"CPU": 1}, 11) and slots("--cpus-per-run=2") == ({"CPU": 2}, 5)
    assert slots("--memory-per-run=4") == ({"CPU": 1, "memory": 4 * 2**30}, 4)
    assert slots("--cpus-per-run=0") == ({}, 0)
    nodes += [{"CPU": 16.0, "GPU": 1.0}]
    assert slots() == ({"CPU": 1, "GPU": 1}, 1)
    assert slots("--gpus-per-run=0.1") == ({"CPU": 1, "GPU": 0.1}, 10)
    nodes += [{"CPU": 1.0, "TPU": 4.0}]
    assert slots("--gpus-per-run=0", "--cpus-per-run=0.25") == ({"CPU": 0.25, "TPU": 1}, 4)


def test_variables_of_a_run(monkeypatch):
    def variables(**share):
        return sweep.make_job(SweepRun(run_of(dataset="synthetic")), share).environment

    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    assert variables(CPU=2)["TF_NUM_INTRAOP_THREADS"] == "2"
    assert "TF_FORCE_GPU_ALLOW_GROWTH" not in {**variables(GPU=1), **variables(CPU=1)}
    assert variables(GPU=0.5)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "5")
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "3")
    assert variables(CPU=2)["TF_NUM_INTRAOP_THREADS"] == "5"
    assert variables(CPU=2)["KERAS_DISTRIBUTION_NUM_PROCESSES"] == "1"


def test_the_table_has_one_line_per_experiment():
    """However many seeds: their states, updates, mean validation error and time left."""
    runs = [SweepRun(run, rate=1000.0) for run in runs_of(TrainConfig(depth=110, runs=1000))]
    runs[0].state, runs[0].step, runs[0].val_error = "finished", 64_000, 7.0
    runs[1].state, runs[1].step, runs[1].val_error = "running", 32_000, 9.0
    text = table.format_progress([*runs, SweepRun(run_of())], slots=1000)
    for part in ("998 waiting", "96,000/64,000,000", "8.00", "94.7 days", "2 h 17 min"):
        assert part in text
    assert len(lines := text.splitlines()) == 6 and max(map(len, lines[:4])) <= 100


def test_the_end_is_the_reports_table(tmp_path, capsys):
    shutil.copytree(REPOSITORY / "results/resnet20-fast-0.2", tmp_path / "x")
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
