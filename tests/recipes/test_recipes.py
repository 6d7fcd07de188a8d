"""Recipes as data: their numbers at the boundaries, what overrides them, what a resume compares."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import train as command
from keras_resnet import recipes
from keras_resnet.commands import terminal
from keras_resnet.data import synthetic
from keras_resnet.recipes import FAST, FAST_0_2, PAPER, RECIPES
from keras_resnet.recipes.schedules import schedule_of
from keras_resnet.runs import checkpoint
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.resume import BEFORE, PLACES
from keras_resnet.runs.run import read_run, runs_of

SETTINGS_OF_0_1_0 = {
    "model", "depth", "shortcut", "dataset", "data_dir", "val_size", "steps", "batch_size",
    "learning_rate", "warmup_steps", "weight_decay", "momentum", "precision", "seed", "runs",
    "eval_every", "checkpoint_every", "output_dir", "name",
}  # fmt: skip


def run(*flags: object) -> int:
    small = ["--depth", "8", "--dataset", "synthetic", "--val-size", "100", "--batch-size", "8"]
    return terminal.run(lambda: command.main([*small, *map(str, flags)]))


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [
        (0, 0.0), (1, 0.0002), (500, 0.1), (999, 0.1998), (1_000, 0.2),
        (8_500, 0.1),  # halfway down
        (15_900, 2.19e-5), (15_999, 0.0), (16_000, 0.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("recipe", [FAST, FAST_0_2], ids=lambda recipe: recipe.name)
def test_the_rate_of_fast_at_its_boundaries(
    recipe: recipes.Recipe, iteration: int, rate: float
) -> None:
    """Both have one shape: a sixteenth of the updates up, then a cosine. At 110 layers as at 20."""
    for depth in (20, 110):
        schedule = schedule_of(recipe.resolve(depth, steps=16_000))
        assert float(schedule(iteration)) == pytest.approx(rate, rel=1e-2, abs=1e-9)


def test_the_paper_is_the_default_and_is_its_schedule() -> None:
    config = TrainConfig()
    assert config.recipe == "paper"
    assert config.resolve_recipe() == PAPER.resolve(20)
    assert (PAPER.steps, PAPER.batch_size, PAPER.learning_rate) == (64_000, 128, 0.1)
    assert (PAPER.momentum, PAPER.nesterov, PAPER.weight_decay) == (0.9, False, 1e-4)
    schedule = schedule_of(TrainConfig(depth=110).resolve_recipe())
    rates = [float(schedule(n)) for n in (0, 399, 400, 31_999, 32_000, 47_999, 48_000)]
    assert rates == pytest.approx([0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001])


@pytest.mark.parametrize(
    ("depth", "flags", "warmup"),
    [(110, {}, 625), (20, {"steps": 4_000}, 250), (20, {"steps": 4_000, "warmup_steps": 7}, 7)],
)
def test_the_warmup_of_fast(depth: int, flags: dict, warmup: int) -> None:
    assert TrainConfig(recipe="fast", depth=depth, **flags).resolve_recipe().warmup_steps == warmup


def test_every_number_can_be_overridden_and_is_stored_as_it_was_used() -> None:
    given = {
        "steps": 100, "batch_size": 7, "learning_rate": 0.3, "warmup_steps": 9,
        "weight_decay": 2e-4, "momentum": 0.8, "crop_padding": 3,
    }  # fmt: skip
    for name in RECIPES:
        settings = runs_of(TrainConfig(recipe=name, **given))[0].settings()
        assert settings["recipe"] == name and settings.items() >= given.items()
        missing = {key for key in RECIPES[name].settings() if settings[key] is None}
        assert missing == (set() if name == "fast" else {"kernel_rate"})
    for recipe in RECIPES.values():
        assert TrainConfig(recipe=recipe.name).resolve_recipe().settings() == {
            **recipe.settings(), "warmup_steps": 0 if recipe is PAPER else recipe.warmup_steps
        }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ({"crop_padding": -1}, "`crop_padding` must be 0 to 1000. Received: -1"),
        ({"crop_padding": 1.5}, "`crop_padding` must be `?int"),
        ({"momentum": 1.0}, "`momentum` must be 0 or more and below 1. Received: 1.0"),
        ({"warmup_steps": 5_000}, "`warmup_steps` must be .* below half of steps=10000"),
        ({"steps": 3}, "`steps` must be 4 to 1000000000. Received: 3"),
        ({"recipe": "slow"}, "`recipe` must be one of paper, fast, fast-0.2. Received: slow"),
    ],
)  # fmt: skip
def test_a_number_that_makes_no_sense_is_refused(number: dict, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        TrainConfig(**{"recipe": "fast", **number})
    with pytest.raises(ValueError, match="None without Nesterov momentum, which Muon needs"):
        dataclasses.replace(PAPER, kernel_rate=0.02)
    with pytest.raises(ValueError, match="`schedule` must be step or cosine. Received: linear"):
        dataclasses.replace(FAST, schedule="linear")
    with pytest.raises(ValueError, match="`kernel_rate` must be .*Received: -1"):
        dataclasses.replace(FAST, kernel_rate=-1)


def test_what_was_changed_is_told() -> None:
    def told(**flags: object) -> str:
        config = TrainConfig(**flags)
        return recipes.describe_changes(config.resolve_recipe(), config.depth)

    assert told() == "paper"
    assert told(recipe="fast", steps=10_000) == "fast"
    assert told(recipe="fast", steps=8_000) == "fast, but steps 8,000 (10,000)"
    assert told(recipe="fast", crop_padding=4) == "fast, but crop padding 4 (2)"
    halved = "fast, but learning rate 0.1 (0.2), kernel rate 0.01 (0.02)"
    assert told(recipe="fast", learning_rate=0.1) == halved
    changed = told(depth=110, weight_decay=5e-4, warmup_steps=0)
    assert changed == "paper, but warmup steps 0 (400), weight decay 0.0005 (0.0001)"
    difference = recipes.describe_difference(FAST.settings(), PAPER.settings())
    for part in (
        "steps 10,000 (64,000)", "schedule cosine (step)", "nesterov True (False)",
        "kernel rate 0.02 (None)", "crop padding 2 (4)",
    ):  # fmt: skip
        assert part in difference


def test_the_help_shows_the_numbers_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = FAST
    with pytest.raises(SystemExit):
        command.main(["--recipe", recipe.name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        f"scales with them (default: {recipe.steps})",
        f"(default: {recipe.learning_rate})",
        f"gradient before the momentum (default: {recipe.weight_decay})",
        f"0 crops nothing (default: {recipe.crop_padding})",
        f"Defaults are those of recipe {recipe.name} at 20 layers.",
        recipes.describe_difference(FAST.settings(), PAPER.settings()),
    ):
        assert part in text


# --- what a resume compares -----------------------------------------------------------------------


def stop_and_finish(output: Path, *flags: object) -> tuple[Path, Path]:
    """(folder of a whole run, folder of the same run without its end: its checkpoint is of update 4)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SYNTHETIC_SIZES", (2_000, 500))
        own = ["--steps", 8, "--eval-every", 2, "--checkpoint-every", 4, "--output-dir", output]
        assert run(*own, "--name", "x", *flags) == 0
    whole = output / "x" / "seed-0"
    half = output / "half" / "x" / "seed-0"
    shutil.copytree(whole, half)
    for name in ("results.json", "model.keras", "checkpoints/step-00000008.npz"):
        (half / name).unlink()
    return whole, half


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return stop_and_finish(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def stopped_0_2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return stop_and_finish(tmp_path_factory.mktemp("fast"), "--recipe", "fast-0.2")


def assert_same_end(folder: Path, whole: Path) -> None:
    one, other = (checkpoint.load(f / "checkpoints/step-00000008.npz")[0] for f in (whole, folder))
    assert one.keys() == other.keys()
    assert [key for key in one if not np.array_equal(one[key], other[key])] == []


def resume(folder: Path, *flags: object) -> int:
    own = ["--steps", 8, "--eval-every", 2, "--checkpoint-every", 4, "--name", "x"]
    return run(*own, "--output-dir", folder.parent.parent, *flags)


def as_0_1_0(folder: Path) -> None:
    """Write config.json and checkpoints as version 0.1.0 did."""
    config = json.loads((folder / "config.json").read_text())
    config["settings"] = {k: v for k, v in config["settings"].items() if k in SETTINGS_OF_0_1_0}
    (folder / "config.json").write_text(json.dumps(config))
    for path in checkpoint.list_checkpoints(folder):
        arrays, state = checkpoint.load(path)
        slots = [key for key in arrays if key.startswith("optimizer/")]
        assert slots and "optimizer/0" not in slots
        by_position = {f"optimizer/{i}": arrays.pop(key) for i, key in enumerate(slots)}
        checkpoint.save(folder, {**arrays, **by_position}, state)


def as_0_2_0(folder: Path) -> None:
    """Write a run of fast-0.2 as version 0.2.0 did, where the recipe's name was fast."""

    def settings_of_0_2_0(settings: dict) -> dict:
        assert settings["recipe"] == "fast-0.2"
        new = ("kernel_rate", "crop_padding")
        return {**{k: v for k, v in settings.items() if k not in new}, "recipe": "fast"}

    config = json.loads((folder / "config.json").read_text())
    config["settings"] = settings_of_0_2_0(config["settings"])
    (folder / "config.json").write_text(json.dumps(config))
    for path in checkpoint.list_checkpoints(folder):
        arrays, state = checkpoint.load(path)
        state["settings"] = settings_of_0_2_0(state["settings"])
        checkpoint.save(folder, arrays, state)


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder.parent.parent, target, dirs_exist_ok=True)
    return target / "x" / "seed-0"


def test_every_setting_that_is_new_since_0_1_0_has_the_value_of_that_time() -> None:
    paper = runs_of(TrainConfig())[0].settings()
    new = paper.keys() - SETTINGS_OF_0_1_0 - set(PLACES)
    assert new == BEFORE.keys()
    assert {key: paper[key] for key in new} == BEFORE


@pytest.mark.usefixtures("small_synthetic")
def test_a_run_of_0_1_0_is_resumed_to_the_same_bits(
    stopped: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, half = stopped
    folder = copy_of(half, tmp_path)
    as_0_1_0(folder)
    assert resume(folder) == 0
    assert "resuming at update 4 of 8" in capsys.readouterr().out
    assert_same_end(folder, whole)


@pytest.mark.usefixtures("small_synthetic")
def test_a_run_of_fast_of_0_2_0_is_resumed_as_fast_0_2(
    stopped_0_2: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, half = stopped_0_2
    folder = copy_of(half, tmp_path)
    as_0_2_0(folder)
    # The same command as in 0.2.0 now asks for other numbers, and is refused before anything is read.
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert resume(folder, "--recipe", "fast") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in (
        "--recipe fast-0.2 there, fast now", "kernel_rate None there, 0.02 now",
        "--crop-padding 4 there, 2 now",
    ):  # fmt: skip
        assert part in error
    assert before == {p: p.read_bytes() for p in before}
    assert resume(folder, "--recipe", "fast-0.2") == 0
    assert "resuming at update 4 of 8" in capsys.readouterr().out
    assert_same_end(folder, whole)


def test_each_published_run_is_of_the_recipe_that_its_folder_names() -> None:
    """Also those of 0.2.0, whose config.json says `fast`."""
    seen = set()
    for folder in Path(__file__).parents[2].glob("results/*-fast*/seed-*"):
        published = read_run(folder)
        recipe = FAST_0_2 if folder.parent.name.endswith("-fast-0.2") else FAST
        assert published.config.recipe == recipe.name and published.recipe == recipe, folder
        seen.add(recipe.name)
    assert seen == {"fast", "fast-0.2"}


@pytest.mark.usefixtures("small_synthetic")
def test_a_setting_that_an_old_run_does_not_name_is_compared_too(
    stopped: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(stopped[1], tmp_path)
    as_0_1_0(folder)
    before = (folder / "metrics.csv").read_bytes()
    same_numbers = ["--learning-rate", 0.1, "--weight-decay", 1e-4, "--warmup-steps", 0]
    assert resume(folder, "--recipe", "fast", *same_numbers) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in (
        "--recipe paper there, fast now", "schedule step there, cosine now",
        "nesterov False there, True now",
    ):  # fmt: skip
        assert part in error
    assert "--learning-rate" not in error
    assert (folder / "metrics.csv").read_bytes() == before
