"""The report of real run folders: what may be averaged, what is drawn, what the page holds."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import train as command
from keras_resnet.commands import terminal
from keras_resnet.commands.report import main
from keras_resnet.recipes import RECIPES
from keras_resnet.report import page, plots, tables
from keras_resnet.report.rows import Row, choose_best, find_runs, group, read_record
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import metrics_csv
from keras_resnet.runs.run import runs_of
from tests.export.nets import another_classifier
from tests.helpers import random_images

REPOSITORY = Path(__file__).resolve().parents[2]
STORED = REPOSITORY / "results/report"
FILES = ["figure6.png", "figure6.svg", "index.html", "results.json", "results.md"]
LINK = re.compile(r'(?:src|srcset|href|data|action|poster)="([^"]*)"')  # what a browser fetches


def make_run(
    root: Path,
    folder: str = "run/seed-0",
    *,
    upto: int | None = None,
    test_error: float = 9.0,
    val_error: float | None = 9.5,
    precision: str = "float32",
    command: str = "python train.py",
    later: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A run folder as training writes it, ten evaluations long.

    `upto`: the update at which it is, unfinished; `later`: settings of a later version.
    """
    (run,) = runs_of(TrainConfig(**settings))
    path = root / folder
    path.mkdir(parents=True)
    saved = {
        "settings": {**run.settings(), **(later or {})},
        "precision": precision,
        "versions": {"keras": "3.15.1"},
        "device": {"kind": "CPU", "name": "a CPU"},
        "git_commit": "abcdef0123456789",
        "command": command,
    }
    files.write_json(path / "config.json", saved)
    steps = run.recipe.steps
    rows = [
        {
            "step": step,
            "train_error": 20.0 - 15 * step / steps,
            "val_error": None if val_error is None else val_error + 5 - 5 * step / steps,
        }
        for step in range(steps // 10, (steps if upto is None else upto) + 1, steps // 10)
    ]
    files.write_atomic(path / "metrics.csv", metrics_csv(rows))
    if upto is None:
        results = {"test_error": test_error, "val_error": val_error, "seconds": 7200.0}
        files.write_json(path / "results.json", {**results, "train_error": 5.0})
    return path


def rows_of(*paths: Path) -> list[Row]:
    return group(map(read_record, find_runs(paths)))[0]


def call(*arguments: object) -> int:
    return terminal.run(lambda: main([str(a) for a in arguments]))


def test_the_stored_report_is_made_of_the_stored_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="needs the extra [report]")
    monkeypatch.chdir(REPOSITORY)
    assert main(["results", "--output", str(tmp_path)]) == 0
    names = ["results.md", "results.json"]
    if f"Matplotlib v{matplotlib.__version__}," in (STORED / "figure6.svg").read_text():
        names += ["figure6.svg", "figure6.png"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (STORED / name).read_bytes(), name


def test_runs_are_found_at_any_depth_once_and_not_when_moved_aside(tmp_path: Path) -> None:
    deep = make_run(tmp_path, "a/b/c/seed-0")
    make_run(tmp_path, "a/b/c/seed-0.old-1")
    make_run(tmp_path, ".hidden/seed-0")
    (tmp_path / "a/no run").mkdir()
    (tmp_path / "a/no run/config.json").write_text("not JSON")
    assert find_runs([tmp_path, tmp_path / "a", deep]) == [deep]


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "plain"}, {"depth": 32}, {"shortcut": "projection"}, {"dataset": "cifar100"},
        {"val_size": 0}, {"steps": 8_000}, {"batch_size": 64}, {"learning_rate": 0.05},
        {"warmup_steps": 400}, {"recipe": "fast"}, {"precision": "mixed_bfloat16"},
        {"later": {"a_setting_of_tomorrow": 1}},
    ],
)  # fmt: skip
def test_runs_that_differ_in_a_setting_are_never_averaged(tmp_path: Path, changed: dict) -> None:
    make_run(tmp_path, "one/seed-0")
    make_run(tmp_path, "other/seed-1", seed=1, **changed)
    rows = rows_of(tmp_path)
    assert [len(row.records) for row in rows] == [1, 1]
    one, other = ({**line, "runs": ""} for line in tables.make_table(rows))
    assert one != other, "a reader must be able to tell the rows apart"


def test_runs_that_differ_in_the_seed_alone_are_one_row(tmp_path: Path) -> None:
    make_run(tmp_path, "one/seed-0")
    make_run(
        tmp_path, "other/seed-1", seed=1, name="other", output_dir="elsewhere", data_dir="/data",
        eval_every=250, checkpoint_every=1000, warmup_steps=0,
    )  # fmt: skip
    (row,) = rows_of(tmp_path)
    assert [record.run.config.seed for record in row.records] == [0, 1]


def test_recipes_of_one_s_own_are_told_apart(tmp_path: Path) -> None:
    for k, momentum in enumerate((0.8, 0.95)):
        recipe = dataclasses.replace(RECIPES["paper"], name="mine", momentum=momentum)
        make_run(tmp_path, f"{k}/seed-{k}", seed=k, recipe=recipe)
    texts = [row.recipe_text for row in rows_of(tmp_path)]
    assert texts == ["mine, but momentum 0.8 (0.9)", "mine, but momentum 0.95 (0.9)"]


def test_one_seed_twice_counts_once_whatever_its_error(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path, "a/seed-0", upto=32_000)
    make_run(tmp_path, "b/seed-0", test_error=10)
    make_run(tmp_path, "c/seed-0", test_error=5)
    assert call(tmp_path, "--output", tmp_path / "out") == 0
    assert "Left out" in capsys.readouterr().out
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert [m["folder"] for m in content["rows"][0]["members"]] == [str(tmp_path / "b/seed-0")]
    assert set(content["left_out"]) == {str(tmp_path / f"{name}/seed-0") for name in "ac"}


def test_mean_and_sample_standard_deviation(tmp_path: Path) -> None:
    for seed, error in enumerate((8.0, 9.0, 10.0)):
        make_run(tmp_path, f"r/seed-{seed}", seed=seed, test_error=error)
    make_run(tmp_path, "r/seed-3", seed=3, upto=32_000)
    make_run(tmp_path, "s/seed-0", depth=56, upto=6_400)
    assert call(tmp_path, "--output", tmp_path / "out") == 0
    row, unfinished = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert row["test_error_mean"] == 9.0 and math.isclose(row["test_error_std"], 1.0)
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
        ({"depth": 26}, (None, None)),
        ({"steps": 8_000}, (None, None)),
        ({"dataset": "cifar100"}, (None, None)),
        ({"shortcut": "projection"}, (None, None)),
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
    best = choose_best(rows_of(tmp_path))
    assert best is not None and best.run.folder.path == tmp_path / "a/seed-0"


def test_figure_6(tmp_path: Path) -> None:
    make_run(tmp_path, "a/seed-0", model="plain")
    make_run(tmp_path, "b/seed-0", val_error=8.0)
    make_run(tmp_path, "b/seed-1", seed=1, val_error=10.0)
    make_run(tmp_path, "c/seed-0", depth=56, upto=32_000)
    make_run(tmp_path, "d/seed-0", recipe="fast", val_size=0, val_error=None)
    figure = plots.make_figure6(rows_of(tmp_path))
    plain, _, residual, rates, no_plain, fast, fast_rates = figure.axes
    assert plain.get_title("left") == "Plain nets, recipe paper\n64,000 updates, cifar10, float32"
    assert fast.get_title("left").startswith("Residual nets, recipe fast, val size 0\n10,000 up")
    assert plain.get_ylim() == residual.get_ylim() == fast.get_ylim() == (0, 25)
    assert residual.get_xlim() == rates.get_xlim() == (0, 64_000)
    labels = {(text.get_text(), text.get_weight()): text.xy for text in residual.texts}
    assert labels["ResNet-20", "bold"] == (64_000, 9.0), "the mean of the seeds"
    assert labels["ResNet-20", "normal"] == (64_000, 5.0)
    assert labels["ResNet-56, unfinished", "bold"] == (32_000, 12.0)
    assert no_plain.texts[0].get_text() == "no plain nets were trained by this recipe"
    assert min(np.diff(sorted(text.xyann[1] for text in residual.texts))) > 1, "labels stand apart"
    (band,) = [c.get_paths()[0].vertices for c in residual.collections if c.get_alpha() == 0.2][1:2]
    assert {8.0, 10.0} <= set(band[:, 1])
    assert "Muon" in fast_rates.texts[0].get_text()


@pytest.mark.parametrize("settings", [{"depth": 110}, {"recipe": "fast"}, {"steps": 1_000}])
def test_the_learning_rate_is_the_recipe_s(settings: dict) -> None:
    """Not that of ten samples: drops and warm-ups stand at their updates."""
    (run,) = runs_of(TrainConfig(**settings))
    rates = dict(zip(*plots.sample_rates(run.recipe), strict=True))
    half, warmup = run.recipe.steps // 2, run.recipe.warmup_steps
    if run.recipe.schedule == "step":
        assert rates[half - 1] == pytest.approx(0.1) and rates[half] == pytest.approx(0.01)
        assert rates[0] == pytest.approx(0.01 if warmup else 0.1)
    assert rates[warmup] == pytest.approx(run.recipe.learning_rate) == max(rates.values())


def test_short_and_odd_runs_are_drawn_too(tmp_path: Path) -> None:
    """One evaluation, of errors far apart; just begun; many settings; errors that are no numbers."""
    row = {"step": 500, "train_error": 62.0, "val_error": 0.0}
    files.write_atomic(make_run(tmp_path, steps=500) / "metrics.csv", metrics_csv([row]))
    panel, _ = plots.make_figure6(rows_of(tmp_path)).axes
    assert panel.get_xlim() == (0, 500) and 62 < panel.get_ylim()[1] <= 100
    marks = [line for line in panel.lines if line.get_marker() == "o"]
    assert len(marks) == 2 and not any(line.get_clip_on() for line in marks), "whole at the edge"
    make_run(tmp_path, "begun/seed-0", upto=0)
    row |= {"train_error": math.nan, "val_error": math.nan}
    odd = make_run(tmp_path, "nan/seed-0", depth=56)
    files.write_atomic(odd / "metrics.csv", metrics_csv([row]))
    for momentum in range(plots.MAX_RECIPES):
        make_run(tmp_path, f"m{momentum}/seed-0", momentum=momentum / 100)
    assert call(tmp_path, "--output", tmp_path / "out") == 0
    json.loads((tmp_path / "out/results.json").read_text(), parse_constant=pytest.fail)


def test_files_are_whole_repeatable_and_the_page_asks_for_nothing(tmp_path: Path) -> None:
    markup = "<script src='https://example.org/x.js'></script> | <img src=//example.org/i.png>"
    make_run(tmp_path / "runs", command=markup)
    for name in ("one", "new/two"):
        assert call(tmp_path / "runs", "--output", tmp_path / name) == 0
    out = tmp_path / "one"
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert all((out / f).read_bytes() == (tmp_path / "new/two" / f).read_bytes() for f in FILES)
    assert (out / "figure6.png").read_bytes().startswith(b"\x89PNG")
    assert xml.etree.ElementTree.parse(out / "figure6.svg").getroot().tag.endswith("svg")
    text = (out / "index.html").read_text()
    (link,) = LINK.findall(text)
    assert link.startswith("data:image/")
    assert not re.search(r"<(script|link|iframe|object)|url\(|@import", text)
    assert html.escape(markup) in text.replace("<wbr>", ""), "the command is shown as text"
    lines = (out / "results.md").read_text().splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("| run | test error"))
    assert lines[header + 2].replace("\\|", "").count("|") == lines[header].count("|")


def test_the_page_says_why_it_shows_no_images(
    tmp_path: Path, capsys: pytest.CaptureFixture, small_synthetic: None
) -> None:
    path = make_run(tmp_path, "a/seed-0")

    def reason(*flags: object) -> str:
        assert call(tmp_path, "--output", tmp_path / "out", *flags) == 0
        assert "no wrongly classified images" in capsys.readouterr().out
        return (tmp_path / "out/index.html").read_text()

    assert "model.keras does not exist" in reason()
    (path / "model.keras").write_bytes(b"not a net")
    (tmp_path / "no data/cifar10").mkdir(parents=True)  # as a download that was given up leaves it
    assert "cifar10 is not in" in reason("--data-dir", tmp_path / "no data")
    (path / "results.json").unlink()
    assert "no finished run has a validation error" in reason()
    damaged = make_run(tmp_path, "b/seed-0", dataset="synthetic") / "model.keras"
    damaged.write_bytes(b"not a net")
    assert str(damaged) in reason()


def test_the_page_shows_images_that_are_not_square(tmp_path: Path) -> None:
    images, labels = random_images(40, 24, 40), np.arange(40) % 5
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    path = make_run(tmp_path / "runs", dataset="own.npz", data_dir=str(tmp_path))
    another_classifier().save(path / "model.keras")
    assert call(tmp_path / "runs", "--output", tmp_path / "out") == 0
    assert "<figure>" in (tmp_path / "out/index.html").read_text()


def test_a_real_run_from_training_to_the_page(tmp_path: Path, small_synthetic: None) -> None:
    flags = "--depth 8 --dataset synthetic --val-size 300 --batch-size 32 --steps 20 --eval-every 5"
    assert command.main([*flags.split(), "--output-dir", str(tmp_path / "experiments")]) == 0
    keras.backend.clear_session()
    assert call(tmp_path / "experiments", "--output", tmp_path / "out") == 0
    text = (tmp_path / "out/index.html").read_text()
    assert "ResNet-8" in text and "batch size 32 (128), val size 300" in text
    assert len(LINK.findall(text)) == 1 + page.MAX_IMAGES
    row = json.loads((tmp_path / "out/results.json").read_text())["rows"][0]
    assert row["runs"] == 1 and row["he_et_al"] is None
    count = f"{row['test_error_mean'] * 5:.0f} of 500"
    assert count in text, "the saved net gives the test error of results.json"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", "{", "run/seed-0/config.json"),
        ("config.json", '{"settings": {"depth": 21}}', "settings that make no sense"),
        ("metrics.csv", "step,train_error\n1,high\n", "run/seed-0/metrics.csv"),
        ("results.json", '{"test_error": null}', "$.test_error"),
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
    assert str(path) in error and not (tmp_path / "out").exists()


def test_where_nothing_can_be_read_or_written(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    run = make_run(tmp_path / "runs")
    (tmp_path / "file").write_text("mine")
    for arguments, said in (
        ([tmp_path / "empty"], "no runs found"),
        ([tmp_path / "missing"], "a folder with runs was expected"),
        ([tmp_path / "runs", "--output", tmp_path / "file"], "could not be written"),
        ([tmp_path / "runs", "--output", run], "--output must not be the folder of a run"),
    ):
        assert call(*arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert call(tmp_path / "runs", "--output", tmp_path / "out") == 2
    assert "pip install" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("document", ["README.md", "docs/results.md"])
def test_the_documents_give_the_errors_of_the_stored_runs(document: str) -> None:
    """Every row of a net in a table that has a recipe, or a column per recipe."""
    known = {}
    for row in json.loads((STORED / "results.json").read_text())["rows"]:
        spread = f" ± {row['test_error_std']:.2f}" if row["runs"] > 1 else ""
        kind = {"resnet": "ResNet", "plain": "Plain"}[row["model"]]
        error = f"{row['test_error_mean']:.2f}{spread}"
        known[f"{kind}-{row['depth']}", row["recipe_text"]] = error
    heads: list[str] = []
    found = {}
    for line in (REPOSITORY / document).read_text().splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if line.startswith("| net |"):
            heads = cells
        for head, cell in zip(heads, cells, strict=False):
            if cells[0].startswith(("ResNet-", "Plain-")) and len(cells) == len(heads) and cell:
                if head in RECIPES:
                    found[cells[0], head] = cell
                elif head == "test error":
                    found[cells[0], cells[heads.index("recipe")]] = cell
    assert found == known
