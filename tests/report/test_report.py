"""The report of real run folders: what may be averaged, what is drawn, what the page holds."""

import dataclasses
import html
import json
import re
import sys

import pytest

from keras_resnet.recipes import RECIPES
from keras_resnet.report import build, plots, tables
from keras_resnet.report.rows import choose_best, find_runs, group, read_record
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunFolder
from keras_resnet.runs.run import runs_of
from tests.helpers import REPOSITORY, call, train

STORED = REPOSITORY / "results/report"
FILES = ["figure6.png", "figure6.svg", "index.html", "results.json", "results.md"]
LINK = re.compile(r'(?:src|srcset|href|data|action|poster)="([^"]*)"')  # what a browser fetches


def make_run(
    root, folder="run/seed-0", *, upto=None, test_error=9.0, val_error=9.5, precision="float32",
    command="python train.py", later=(), **settings,
):  # fmt: skip
    """A run folder as training writes it, ten evaluations long.

    `upto`: the update at which it is, unfinished; `later`: settings of a later version.
    """
    (run,) = runs_of(TrainConfig(**settings))
    path = root / folder
    path.mkdir(parents=True)
    saved = {
        "settings": {**run.settings(), **dict(later)},
        "precision": precision,
        "versions": {"keras": "3.15.1"},
        "device": {"kind": "CPU", "name": "a CPU"},
        "git_commit": "abcdef0123456789",
        "command": command,
    }
    files.write_json(path / "config.json", saved)
    steps, rows = run.recipe.steps, []
    for step in range(steps // 10, (steps if upto is None else upto) + 1, steps // 10):
        val = None if val_error is None else val_error + 5 - 5 * step / steps
        rows.append({"step": step, "train_error": 20.0 - 15 * step / steps, "val_error": val})
    RunFolder(path).write_metrics(rows)
    if upto is None:
        results = {"test_error": test_error, "val_error": val_error, "seconds": 7200.0}
        files.write_json(path / "results.json", {**results, "train_error": 5.0})
    return path


def rows_of(*paths):
    return group(map(read_record, find_runs(paths)))[0]


def report_of(folder, *flags):
    """Make the report of the runs in a folder, and read its JSON."""
    assert call("report", folder, "--output", folder / "out", *flags) == 0
    return json.loads((folder / "out/results.json").read_text(), parse_constant=pytest.fail)


def test_the_stored_report_is_made_of_the_stored_runs(tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib", reason="needs the extra [report]")
    monkeypatch.chdir(REPOSITORY)
    assert call("report", "results", "--output", tmp_path) == 0
    names = ["results.md", "results.json"]
    if f"Matplotlib v{matplotlib.__version__}," in (STORED / "figure6.svg").read_text():
        names += ["figure6.svg", "figure6.png"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (STORED / name).read_bytes(), name


def test_runs_are_found_at_any_depth_once_and_not_when_moved_aside(tmp_path):
    deep = make_run(tmp_path, "a/b/c/seed-0")
    make_run(tmp_path, "a/b/c/seed-0.old-1")
    make_run(tmp_path, ".hidden/seed-0")
    assert find_runs([tmp_path, tmp_path / "a", deep]) == [deep]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "linked").symlink_to(deep)
    (elsewhere / "loop").symlink_to(elsewhere)
    assert find_runs([elsewhere]) == [elsewhere / "linked"]


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "plain"}, {"depth": 32}, {"val_size": 0}, {"precision": "mixed_bfloat16"},
        {"later": {"a_setting_of_tomorrow": 1}},
        {"recipe": dataclasses.replace(RECIPES["paper"], name="mine", momentum=0.8)},
    ],
)  # fmt: skip
def test_runs_that_differ_in_a_setting_are_never_averaged(tmp_path, changed):
    make_run(tmp_path, "one/seed-0")
    make_run(tmp_path, "other/seed-1", seed=1, **changed)
    rows = rows_of(tmp_path)
    assert [len(row.records) for row in rows] == [1, 1]
    one, other = ({**line, "runs": ""} for line in tables.make_table(rows))
    assert one != other, "a reader must be able to tell the rows apart"


@pytest.mark.parametrize(
    ("model", "results"),
    [("resnet", {"stopped_early": True}), ("my_nets:build", {"parameters": 7})],
)
def test_runs_that_differ_in_their_results_alone(model, results, tmp_path):
    """Stopped by a callback, or of a user's function that was edited: neither is a setting."""
    for seed in (0, 1):
        file = make_run(tmp_path, f"run/seed-{seed}", seed=seed, model=model) / "results.json"
        files.write_json(
            file, {**json.loads(file.read_text()), "parameters": 5, **(results if seed else {})}
        )
    rows = rows_of(tmp_path)
    assert [len(row.records) for row in rows] == [1, 1]
    assert rows[0].recipe_text != rows[1].recipe_text


def test_one_seed_twice_counts_once_whatever_its_error(tmp_path, capsys):
    make_run(tmp_path, "a/seed-0", upto=32_000)
    make_run(tmp_path, "b/seed-0", test_error=10)
    make_run(tmp_path, "c/seed-0", test_error=5)
    content = report_of(tmp_path)
    assert "Left out" in capsys.readouterr().out
    assert [m["folder"] for m in content["rows"][0]["members"]] == [str(tmp_path / "b/seed-0")]
    assert set(content["left_out"]) == {str(tmp_path / f"{name}/seed-0") for name in "ac"}


def test_mean_and_sample_standard_deviation(tmp_path):
    for seed, error in enumerate((8.0, 9.0, 10.0)):
        others = {"name": f"r{seed}", "output_dir": "elsewhere", "eval_every": 250 * 2**seed}
        make_run(tmp_path, f"r/seed-{seed}", seed=seed, test_error=error, **others)
    make_run(tmp_path, "r/seed-3", seed=3, upto=32_000)
    make_run(tmp_path, "s/seed-0", depth=56, upto=6_400)
    row, unfinished = report_of(tmp_path)["rows"]
    assert row["test_error_mean"] == 9.0 and row["test_error_std"] == pytest.approx(1)
    assert row["runs"] == 3 and [m["seed"] for m in row["members"]] == [0, 1, 2, 3]
    assert unfinished["test_error_mean"] is unfinished["test_error_std"] is None
    text = (tmp_path / "out/results.md").read_text()
    assert "| 9.00 ± 1.00 | 3; seed 3 unfinished at 32,000 | 9.50 | 5.00 | 8.75 | 8.51" in text
    assert "| unfinished | seed 0 unfinished at 6,400 | - |" in text
    assert text.count("| python train.py | abcdef0123456789 | a CPU | keras 3.15.1 |") == 5


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"depth": 110}, ("6.43 best, 6.61 ± 0.16", "7.14 ± 0.20")),
        ({"depth": 44, "recipe": "fast"}, ("7.17", None)),
        ({"model": "plain", "depth": 56}, (None, "12.95 ± 0.22")),
        ({"steps": 8_000}, (None, None)),
        ({"shortcut": "projection"}, (None, None)),
    ],
)
def test_published_values_stand_beside_comparable_rows_only(tmp_path, settings, expected):
    make_run(tmp_path, **settings)
    assert rows_of(tmp_path)[0].references == expected


def test_the_best_run_is_chosen_by_validation_error(tmp_path):
    make_run(tmp_path, "a/seed-0", val_error=9.0, test_error=9.5)
    make_run(tmp_path, "a/seed-1", seed=1, val_error=9.1, test_error=8.0)
    make_run(tmp_path, "b/seed-0", dataset="synthetic", val_error=0.1, test_error=0.1)
    make_run(tmp_path, "c/seed-0", val_size=0, val_error=None, test_error=0.2)
    best = choose_best(rows_of(tmp_path))
    assert best is not None and best.run.folder.path == tmp_path / "a/seed-0"


def test_figure_6(tmp_path):
    make_run(tmp_path, "a/seed-0", model="plain")
    make_run(tmp_path, "b/seed-0", val_error=8.0)
    make_run(tmp_path, "b/seed-1", seed=1, val_error=10.0)
    make_run(tmp_path, "c/seed-0", depth=56, upto=32_000)
    make_run(tmp_path, "d/seed-2", seed=2, upto=0)  # has just begun
    plain, _, residual, rates = plots.make_figure6(rows_of(tmp_path)).axes
    assert plain.get_ylim() == residual.get_ylim() == (0, 25)
    assert residual.get_xlim() == rates.get_xlim() == (0, 64_000)
    labels = {(text.get_text(), text.get_weight()): text.xy for text in residual.texts}
    assert labels["ResNet-20", "bold"] == (64_000, 9.0), "the mean of the seeds"
    assert labels["ResNet-56, unfinished", "bold"] == (32_000, 12.0)


def test_one_evaluation_is_a_mark(tmp_path):
    row = {"step": 500, "train_error": 62.0, "val_error": 0.0}
    RunFolder(make_run(tmp_path, steps=500)).write_metrics([row])
    panel, _ = plots.make_figure6(rows_of(tmp_path)).axes
    assert panel.get_xlim() == (0, 500) and 62 < panel.get_ylim()[1] <= 100
    marks = [line for line in panel.lines if line.get_marker() == "o"]
    assert len(marks) == 2 and not any(line.get_clip_on() for line in marks), "whole at the edge"


def test_files_are_whole_repeatable_and_the_page_asks_for_nothing(tmp_path):
    markup = "<script src='https://example.org/x.js'></script> | <img src=//example.org/i.png>"
    make_run(tmp_path / "runs", command=markup)
    for name in ("one", "new/two"):
        assert call("report", tmp_path / "runs", "--output", tmp_path / name) == 0
    out = tmp_path / "one"
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert all((out / f).read_bytes() == (tmp_path / "new/two" / f).read_bytes() for f in FILES)
    text = (out / "index.html").read_text()
    (link,) = LINK.findall(text)
    assert link.startswith("data:image/")
    assert not re.search(r"<(script|link|iframe|object)|url\(|@import", text)
    assert html.escape(markup) in text.replace("<wbr>", ""), "the command is shown as text"
    lines = (out / "results.md").read_text().splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("| run | test error"))
    assert lines[header + 2].replace("\\|", "").count("|") == lines[header].count("|")


def test_the_page_says_why_it_shows_no_images(tmp_path, capsys):
    path = make_run(tmp_path, "a/seed-0")

    for reason in ("model.keras does not exist", "cifar10 is not in"):
        report_of(tmp_path, "--data-dir", tmp_path)
        assert "no wrongly classified images" in capsys.readouterr().out
        assert reason in (tmp_path / "out/index.html").read_text()
        (path / "model.keras").write_bytes(b"not a net")


def test_a_real_run_from_training_to_the_page(tmp_path, small_synthetic):
    assert train(tmp_path, "--eval-every=2") == 0
    (row,) = report_of(tmp_path)["rows"]
    assert row["runs"] == 1 and row["he_et_al"] is None
    text = (tmp_path / "out/index.html").read_text()
    assert "ResNet-8" in text and "batch size 8 (128), val size 100" in text
    assert len(LINK.findall(text)) == 1 + build.MAX_IMAGES
    count = f"{row['test_error_mean'] * 5:.0f} of 500"
    assert count in text, "the saved net gives the test error of results.json"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", '{"settings": {"depth": 21}}', "settings that make no sense"),
        ("metrics.csv", "step,train_error\n1,high\n", "run/seed-0/metrics.csv"),
    ],
)
def test_an_unreadable_run_is_one_line(tmp_path, refused, file, content, said):
    path = make_run(tmp_path)
    (path / file).write_text(content)
    error = refused("report", tmp_path, "--output", tmp_path / "out")
    assert said in error and str(path) in error and not (tmp_path / "out").exists()


def test_where_nothing_can_be_read_or_written(tmp_path, refused, monkeypatch):
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "runs")
    (tmp_path / "file").write_text("mine")
    assert "no runs found" in refused("report", tmp_path / "empty")
    words = ["report", tmp_path / "runs", "--output"]
    assert "--output must be a folder" in refused(*words, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install" in refused(*words, tmp_path / "out")
    assert not (tmp_path / "out").exists()
