"""The report from real run folders: what may be averaged, what is drawn, what the page holds."""

from __future__ import annotations

import html.parser
import json
import math
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_resnet
import train as command
from keras_resnet.commands import terminal
from keras_resnet.commands.report import main
from keras_resnet.data import datasets
from keras_resnet.report import page as report_page
from keras_resnet.report import plots, tables
from keras_resnet.report.rows import Row, best_run, find, group, read
from keras_resnet.runs import files
from keras_resnet.runs.folder import RunFolder, metrics_csv

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ["figure6.png", "figure6.svg", "index.html", "results.json", "results.md"]


def make_run(
    root: Path,
    folder: str = "run/seed-0",
    *,
    finished: bool = True,
    upto: int | None = None,
    test_error: float = 9.0,
    val_error: float | None = 9.5,
    precision: str = "float32",
    commit: str | None = "abcdef0123456789",
    command: str = "python train.py",
    **settings: Any,
) -> Path:
    """A run folder as training writes it, ten evaluations long."""
    settings = {"seed": 0, "steps": 64_000, **settings}
    path = root / folder
    path.mkdir(parents=True)
    saved = {
        "settings": settings,
        "precision": precision,
        "versions": {"keras": "3.15.1"},
        "device": {"kind": "CPU", "name": "a CPU"},
        "git_commit": commit,
        "class_names": [],
        "command": command,
    }
    files.write_json(path / "config.json", saved)
    every = settings["steps"] // 10
    rows = [
        {
            "step": step,
            "learning_rate": 0.1,
            "train_loss": 1.0,
            "train_error": 20.0 - 15 * step / settings["steps"],
            "val_loss": 1.0,
            "val_error": None
            if val_error is None
            else val_error + 5 - 5 * step / settings["steps"],
            "images_per_second": 900.0,
        }
        for step in range(every, (upto if upto is not None else settings["steps"]) + 1, every)
    ]
    files.write_atomic(path / "metrics.csv", metrics_csv(rows))
    if finished:
        results = {"test_error": test_error, "val_error": val_error, "seconds": 7200.0}
        files.write_json(path / "results.json", {**results, "parameters": 269_722})
    return path


def rows_of(*paths: Path) -> list[Row]:
    return group([read(f) for f in find(paths)])[0]


def call(*arguments: object) -> int:
    return terminal.run(lambda: main([str(a) for a in arguments]))


# --- what is read --------------------------------------------------------------------------------


def test_runs_are_found_at_any_depth_once_and_not_when_moved_aside(tmp_path: Path) -> None:
    deep = make_run(tmp_path, "a/b/c/seed-0")
    make_run(tmp_path, "a/b/c/seed-0.old-1")
    make_run(tmp_path, "a/b.old-2/seed-0")
    make_run(tmp_path, ".hidden/seed-0")
    (tmp_path / "a" / "no run").mkdir()
    (tmp_path / "a" / "no run" / "config.json").write_text("not JSON, and nobody's business")
    assert find([tmp_path, tmp_path / "a", deep]) == [deep]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "plain"), ("depth", 32), ("shortcut", "projection"), ("dataset", "cifar100"),
        ("val_size", 0), ("steps", 8_000), ("batch_size", 64), ("learning_rate", 0.05),
        ("warmup_steps", 400), ("weight_decay", 5e-4), ("momentum", 0.8),
        ("precision", "mixed_bfloat16"), ("a_setting_of_tomorrow", 1),
    ],
)  # fmt: skip
def test_runs_that_differ_in_a_setting_are_never_mixed(
    tmp_path: Path, name: str, value: object
) -> None:
    make_run(tmp_path, "one/seed-0")
    make_run(tmp_path, "other/seed-1", seed=1, **{name: value})
    rows = rows_of(tmp_path)
    assert [len(row.runs) for row in rows] == [1, 1]
    names, cells = tables.table(rows)
    assert len({tuple(line) for line in cells}) == 2, "a reader could not tell the rows apart"
    assert names.count("other settings") == 1


def test_runs_that_differ_in_the_seed_alone_are_one_row(tmp_path: Path) -> None:
    make_run(tmp_path, "one/seed-0", precision="float32", warmup_steps=0)
    make_run(
        tmp_path, "other/seed-1", seed=1, name="other", output_dir="elsewhere", data_dir="/data",
        eval_every=250, checkpoint_every=1000, runs=3, warmup_steps=None, commit="b" * 40,
    )  # fmt: skip
    (row,) = rows_of(tmp_path)
    assert [run.config.seed for run in row.runs] == [0, 1]


def test_one_seed_twice_counts_once_whatever_its_error(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path, "a/seed-0", finished=False, test_error=1)
    make_run(tmp_path, "b/seed-0", test_error=10)
    make_run(tmp_path, "c/seed-0", test_error=5)
    rows, left_out = group([read(f) for f in find([tmp_path])])
    assert [run.folder.parent.name for run in rows[0].runs] == ["b"]
    assert {run.folder.parent.name for run in left_out} == {"a", "c"}
    assert call(tmp_path, "--output", tmp_path / "report") == 0
    assert "Left out" in capsys.readouterr().out


# --- numbers -------------------------------------------------------------------------------------


def test_mean_and_sample_standard_deviation(tmp_path: Path) -> None:
    for seed, error in enumerate((8.0, 9.0, 10.0)):
        make_run(tmp_path, f"r/seed-{seed}", seed=seed, test_error=error)
    make_run(tmp_path, "r/seed-3", seed=3, finished=False, upto=32_000)
    assert call(tmp_path, "--output", tmp_path / "out") == 0
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert row["test_error_mean"] == 9.0 and math.isclose(row["test_error_std"], 1.0)
    assert row["runs"] == 3 and row["unfinished"] == 1 and row["seeds"] == [0, 1, 2, 3]
    assert row["hours"] == 2.0 and row["parameters"] == 269_722
    assert row["recipe"] == "paper" and row["other_settings"] == ""
    assert row["he_et_al"] == "8.75" and row["pytorch_reproduction"] == "8.51 ± 0.22"
    assert row["commits"] == ["abcdef0123456789"] and row["versions"] == {"keras": ["3.15.1"]}
    text = (tmp_path / "out" / "results.md").read_text()
    assert "| 9.00 ± 1.00 | 3; seed 3 unfinished at step 32,000 | 8.75 | 8.51 ± 0.22 |" in text


def test_one_run_has_no_standard_deviation_and_an_unfinished_one_no_error(tmp_path: Path) -> None:
    make_run(tmp_path, "a/seed-0", test_error=9.123)
    make_run(tmp_path, "b/seed-0", depth=56, finished=False, upto=6_400)
    one, unfinished = rows_of(tmp_path)
    assert tables.error_text(one) == "9.12" and one.std is None
    assert tables.error_text(unfinished) == "unfinished"
    assert tables.runs_text(unfinished) == "seed 0 unfinished at step 6,400"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"depth": 110}, ("6.43 best, 6.61 ± 0.16", "7.14 ± 0.20")),
        ({"depth": 44}, ("7.17", None)),
        ({"model": "plain", "depth": 56}, (None, "12.95 ± 0.22")),
        ({"depth": 26}, (None, None)),
        ({"steps": 8_000}, (None, None)),
        ({"dataset": "cifar100"}, (None, None)),
        ({"dataset": "synthetic"}, (None, None)),
        ({"shortcut": "projection"}, (None, None)),
        ({"batch_size": 64}, (None, None)),
        ({"recipe": "fast", "weight_decay": 1e-3}, (None, None)),
    ],
)
def test_published_values_stand_beside_comparable_rows_only(
    tmp_path: Path, settings: dict, expected: tuple
) -> None:
    make_run(tmp_path, **settings)
    assert rows_of(tmp_path)[0].references == expected


def test_the_best_run_is_chosen_by_validation_error(tmp_path: Path) -> None:
    make_run(tmp_path, "a/seed-0", val_error=9.0, test_error=9.5)
    make_run(tmp_path, "a/seed-1", seed=1, val_error=9.1, test_error=8.0)
    make_run(tmp_path, "b/seed-0", dataset="synthetic", val_error=0.1, test_error=0.1)
    make_run(tmp_path, "c/seed-0", val_size=0, val_error=None, test_error=0.2)
    best = best_run(rows_of(tmp_path))
    assert best is not None and best.folder == tmp_path / "a" / "seed-0"


# --- pictures ------------------------------------------------------------------------------------


def test_figure_6(tmp_path: Path) -> None:
    make_run(tmp_path, "a/seed-0", model="plain")
    make_run(tmp_path, "b/seed-0")
    make_run(tmp_path, "c/seed-0", depth=56, finished=False, upto=32_000)
    make_run(tmp_path, "d/seed-0", steps=8_000)
    axes = plots.figure6(rows_of(tmp_path), 2).axes
    plain, residual, scaled_residual = axes  # no plain net has the shorter schedule
    assert all(a.get_ylim() == (0, 25) for a in axes)
    assert residual.get_xlim() == (0, 6.4) and scaled_residual.get_xlim() == (0, 0.8)
    assert "iterations (1e4)" in plain.get_xlabel()
    assert not plain.texts and "Residual" in scaled_residual.get_title(loc="left")

    def curves(panel: Any) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for line in panel.lines:
            if len(line.get_xdata()) > 2:
                found.setdefault(line.get_color(), []).append(line)
        return found

    colors = plots.COLORS
    assert set(curves(plain)) == {colors[20]} and set(curves(residual)) == {colors[20], colors[56]}
    train, validation = curves(residual)[colors[56]]
    assert train.get_linewidth() < 1 < validation.get_linewidth()
    assert max(train.get_xdata()) == max(validation.get_xdata()) == 3.2
    assert validation.get_ydata()[-1] == pytest.approx(12.0)


def test_a_short_run_is_readable(tmp_path: Path) -> None:
    """One evaluation, of errors far apart: two marks, whole at the edge, and no empty panel."""
    path = make_run(tmp_path, steps=500)
    (row,) = RunFolder(path).read_metrics()[:1]
    last = [{**row, "step": 500, "train_error": 62.0, "val_error": 0.0}]
    files.write_atomic(path / "metrics.csv", metrics_csv(last))
    figure = plots.figure6(rows_of(tmp_path), 2)
    (panel,) = figure.axes
    assert panel.get_xlim() == (0, 500) and panel.get_xlabel() == "iterations"
    assert 62 < panel.get_ylim()[1] <= 100 and not panel.texts
    marks = {line.get_marker(): line for line in panel.lines if len(line.get_xdata()) == 1}
    assert set(marks) == {"s", "o"} and not any(line.get_clip_on() for line in marks.values())
    legend = {line.get_label(): line.get_marker() for line in figure.legends[0].get_lines()}
    assert legend["training error"] == "s" and legend["validation error"] == "o"
    assert len(plots.progress(rows_of(tmp_path), 2).axes) == 2


def test_several_seeds_are_drawn_as_their_mean(tmp_path: Path) -> None:
    make_run(tmp_path, "a/seed-0", val_error=8.0)
    make_run(tmp_path, "a/seed-1", seed=1, val_error=10.0)
    panel = plots.figure6(rows_of(tmp_path), 2).axes[0]
    assert panel.lines[-1].get_ydata()[-1] == pytest.approx(9.0)


def test_a_curve_that_is_nowhere_on_the_axis_is_told(tmp_path: Path) -> None:
    path = make_run(tmp_path, depth=56, model="plain")
    (row,) = RunFolder(path).read_metrics()[:1]
    above = [{**row, "step": s, "train_error": 60.0, "val_error": 61.0} for s in (500, 1000)]
    files.write_atomic(path / "metrics.csv", metrics_csv(above))
    panel = plots.figure6(rows_of(tmp_path), 2).axes[0]
    assert [t.get_text() for t in panel.texts] == ["above 25 %: Plain-56"]


def test_the_paper_s_axis_is_for_the_paper_s_data(tmp_path: Path) -> None:
    for dataset in ("cifar10", "cifar100"):
        make_run(tmp_path, f"{dataset}/seed-0", dataset=dataset, val_error=31.0)
    cifar10, cifar100 = plots.figure6(rows_of(tmp_path), 2).axes
    assert cifar10.get_ylim()[1] == 25
    assert cifar100.get_ylim()[1] == pytest.approx(1.2 * 31.0)


def test_colors_stay_apart_for_depths_of_our_own(tmp_path: Path) -> None:
    for depth in (8, 14, 20, 26, 56, 110):
        make_run(tmp_path, f"d{depth}/seed-0", depth=depth)
    colors = plots.depth_colors(rows_of(tmp_path))
    assert len(set(colors.values())) == 6 and colors[110] == plots.COLORS[110]


def test_odd_runs_are_drawn_too(tmp_path: Path) -> None:
    """Just begun, without validation, and with errors that are no numbers."""
    make_run(tmp_path, "begun/seed-0", finished=False, upto=0)
    make_run(tmp_path, "all/seed-0", val_size=0, val_error=None)
    path = make_run(tmp_path, "nan/seed-0", depth=56)
    rows = [
        {**row, "train_error": math.nan, "val_error": math.nan}
        for row in RunFolder(path).read_metrics()
    ]
    files.write_atomic(path / "metrics.csv", metrics_csv(rows))
    assert call(tmp_path, "--output", tmp_path / "out") == 0
    json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)


# --- the files -----------------------------------------------------------------------------------


class Links(html.parser.HTMLParser):
    """Everything on a page that a browser would fetch, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        names = ("src", "srcset", "href", "data", "action", "poster")
        self.links += [value for name, value in attrs if name in names]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_files_are_whole_and_the_page_asks_for_nothing(tmp_path: Path) -> None:
    hostile = "<script src='https://example.org/x.js'></script> | <img src=//example.org/i.png>"
    make_run(tmp_path, "a/seed-0", command=hostile, commit=hostile)
    out = tmp_path / "new" / "report"
    assert call(tmp_path, "--output", out) == 0
    assert sorted(path.name for path in out.iterdir()) == FILES
    png = (out / "figure6.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 10_000
    assert xml.etree.ElementTree.parse(out / "figure6.svg").getroot().tag.endswith("svg")
    page = (out / "index.html").read_text()
    links = Links(page)
    assert len(links.links) == 4 and all(link.startswith("data:image/") for link in links.links)
    assert not {"script", "link", "iframe", "object"} & set(links.tags)
    assert "url(" not in page and "@import" not in page
    assert hostile in links.text, "the command is shown as text"
    lines = (out / "results.md").read_text().splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("| model | steps"))
    assert lines[header + 2].replace("\\|", "").count("|") == lines[header].count("|")


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    make_run(tmp_path / "runs")
    for name in ("one", "two"):
        assert call(tmp_path / "runs", "--output", tmp_path / name) == 0
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_page_says_why_it_shows_no_images(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = make_run(tmp_path, "a/seed-0")

    def reason(*flags: object) -> str:
        assert call(tmp_path, "--output", tmp_path / "out", *flags) == 0
        assert "no wrongly classified images" in capsys.readouterr().out
        return Links((tmp_path / "out" / "index.html").read_text()).text

    text = reason()
    assert "model.keras does not exist" in text and "the test set chooses nothing" in text
    (path / "model.keras").write_bytes(b"not a net")
    (tmp_path / "no data/cifar10").mkdir(parents=True)  # as a download that was given up leaves it
    assert "cifar10 is not in" in reason("--data-dir", tmp_path / "no data")
    (path / "results.json").unlink()
    assert "no finished run has a validation error" in reason()


def test_a_damaged_net_is_told(tmp_path: Path, small_synthetic: None) -> None:
    path = make_run(tmp_path, dataset="synthetic")
    (path / "model.keras").write_bytes(b"not a net")
    assert call(tmp_path, "--output", tmp_path / "out") == 0
    assert "model.keras could not be used" in (tmp_path / "out" / "index.html").read_text()


def test_the_images_are_those_the_net_gets_wrong(tmp_path: Path, small_synthetic: None) -> None:
    """An untrained net on the synthetic images, against the arrays themselves."""
    path = make_run(tmp_path, dataset="synthetic", depth=8, steps=100)
    net = keras_resnet.resnet(8, seed=3)
    net.save(path / "model.keras")
    wrong = report_page.mistakes(read(path), None)
    assert not isinstance(wrong, str)
    data = datasets.load("synthetic")
    probabilities = np.asarray(net(data.test_images.astype("float32"), training=False))
    said = probabilities.argmax(axis=1)
    assert wrong.total == 500 and abs(wrong.count - np.sum(said != data.test_labels)) <= 1
    assert len(wrong.captions) == len(wrong.images) == report_page.MAX_MISTAKES
    sure = [int(caption.split()[1]) for caption in wrong.captions]
    surest = probabilities.max(axis=1)[said != data.test_labels].max()
    assert sure == sorted(sure, reverse=True) and abs(sure[0] - 100 * surest) <= 1
    for image, caption in zip(wrong.images, wrong.captions, strict=True):
        (index,) = np.flatnonzero((data.test_images == image).all(axis=(1, 2, 3)))
        assert caption.endswith(f"\nis {data.class_names[data.test_labels[index]]}")
        assert not caption.startswith(data.class_names[data.test_labels[index]])


def test_a_real_run_from_training_to_the_page(tmp_path: Path, small_synthetic: None) -> None:
    flags = "--depth 8 --dataset synthetic --val-size 300 --batch-size 32 --steps 20 --eval-every 5"
    assert command.main([*flags.split(), "--output-dir", str(tmp_path / "experiments")]) == 0
    keras.backend.clear_session()
    assert call(tmp_path / "experiments", "--output", tmp_path / "out") == 0
    page = Links((tmp_path / "out" / "index.html").read_text())
    assert "ResNet-8" in page.text and "batch size 32, val size 300" in page.text
    assert len(page.links) == 4 + report_page.MAX_MISTAKES
    row = json.loads((tmp_path / "out" / "results.json").read_text())["rows"][0]
    assert row["runs"] == 1 and row["scaled_schedule"] and row["he_et_al"] is None
    count = f"{row['test_error_mean'] * 5:.0f} of 500"
    assert count in page.text, "the saved net gives the test error of results.json"


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", "{", "config.json could not be read as JSON"),
        ("config.json", "[1]", "config.json must hold a JSON object"),
        ("config.json", "{}", "config.json has no settings"),
        ("config.json", '{"settings": {"depth": 21}}', "depth must be 6n+2"),
        ("config.json", '{"settings": {"steps": "many"}}', "a setting that cannot be"),
        ("metrics.csv", "step,train_error\n1,high\n", "metrics.csv could not be read"),
        ("results.json", '{"test_error": null}', "must have a test_error"),
        ("results.json", '{"test_error"', "results.json could not be read as JSON"),
    ],
)
def test_an_unreadable_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, file: str, content: str, said: str
) -> None:
    path = make_run(tmp_path)
    (path / file).write_text(content)
    assert call(tmp_path, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert str(path) in error or "depth" in error
    assert not (tmp_path / "out").exists()


def test_where_nothing_can_be_read_or_written(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "runs")
    (tmp_path / "file").write_text("mine")
    for arguments, said in (
        ([tmp_path / "empty"], "no runs found"),
        ([tmp_path / "missing"], "a folder with runs was expected"),
        ([tmp_path / "runs", "--output", tmp_path / "file"], "--output must be a folder"),
        ([tmp_path / "runs", "--output", "/proc/report"], "--output must be a folder"),
    ):
        assert call(*arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert call(tmp_path / "runs", "--output", tmp_path / "out") == 2
    assert "pip install" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "keras_resnet", "report", str(tmp_path)]
    done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: no runs found")
    assert "Traceback" not in done.stderr
