"""Recipes as data: their numbers at the boundaries, what overrides them, what a resume compares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import train as command
from keras_resnet import recipes
from keras_resnet.commands import terminal
from keras_resnet.data import datasets, synthetic
from keras_resnet.recipes import FAST, PAPER, RECIPES
from keras_resnet.recipes.schedules import schedule_of
from keras_resnet.runs import checkpoints
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.resume import BEFORE, PLACES
from keras_resnet.training.model import build_net, training_model

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
def test_the_rate_of_fast_at_its_boundaries(iteration: int, rate: float) -> None:
    schedule = schedule_of(FAST.resolve(depth=20))
    assert float(schedule(iteration)) == pytest.approx(rate, rel=1e-2, abs=1e-9)


def test_the_rate_of_fast_scales_with_steps() -> None:
    full, quarter = (schedule_of(FAST.resolve(20, steps=n)) for n in (16_000, 4_000))
    for iteration in (0, 100, 250, 1_000, 2_125, 3_999):
        assert float(quarter(iteration)) == pytest.approx(float(full(4 * iteration)), abs=1e-5)


def test_the_paper_is_the_default_and_is_its_schedule() -> None:
    config = TrainConfig()
    assert config.recipe == "paper"
    assert config.resolved_recipe == PAPER.resolve(20)
    assert (PAPER.steps, PAPER.batch_size, PAPER.learning_rate) == (64_000, 128, 0.1)
    assert (PAPER.momentum, PAPER.nesterov, PAPER.weight_decay) == (0.9, False, 1e-4)
    schedule = schedule_of(TrainConfig(depth=110).resolved_recipe)
    rates = [float(schedule(n)) for n in (0, 399, 400, 31_999, 32_000, 47_999, 48_000)]
    assert rates == pytest.approx([0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001])


@pytest.mark.parametrize(
    ("depth", "flags", "warmup"),
    [(20, {}, 1_000), (110, {}, 1_000), (20, {"steps": 4_000}, 250), (20, {"steps": 8}, 0),
     (20, {"steps": 4_000, "warmup_steps": 7}, 7), (20, {"warmup_steps": 0}, 0)],
)  # fmt: skip
def test_the_warmup_of_fast(depth: int, flags: dict, warmup: int) -> None:
    assert TrainConfig(recipe="fast", depth=depth, **flags).warmup == warmup


def test_every_number_can_be_overridden_and_is_stored_as_it_was_used() -> None:
    given = {
        "steps": 100, "batch_size": 7, "learning_rate": 0.3, "warmup_steps": 9,
        "weight_decay": 2e-4, "momentum": 0.8,
    }  # fmt: skip
    for name in RECIPES:
        settings = TrainConfig(recipe=name, **given).settings()
        assert settings["recipe"] == name and settings.items() >= given.items()
        assert None not in (settings[key] for key in RECIPES[name].settings())
    assert TrainConfig(recipe="fast").settings().items() >= FAST.settings().items()


def test_what_was_changed_is_told() -> None:
    def told(**flags: object) -> str:
        config = TrainConfig(**flags)
        return recipes.describe_changes(config.resolved_recipe, config.depth)

    assert told() == "paper"
    assert told(recipe="fast", steps=16_000) == "fast"
    assert told(recipe="fast", steps=8_000) == "fast, but steps 8,000 (16,000)"
    changed = told(depth=110, weight_decay=5e-4, warmup_steps=0)
    assert changed == "paper, but warmup steps 0 (400), weight decay 0.0005 (0.0001)"
    difference = recipes.describe_difference(FAST, PAPER)
    for part in ("steps 16,000 (64,000)", "schedule cosine (step)", "nesterov True (False)"):
        assert part in difference


@pytest.mark.parametrize("recipe", [PAPER, FAST], ids=lambda recipe: recipe.name)
def test_the_help_shows_the_numbers_of_the_recipe(
    recipe: recipes.Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["--recipe", recipe.name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        f"scales with them (default: {recipe.steps})",
        f"(default: {recipe.learning_rate})",
        f"before the momentum (default: {recipe.weight_decay})",
        f"Defaults are those of recipe {recipe.name} at 20 layers.",
        recipes.describe_difference(FAST, PAPER),
    ):
        assert part in text


@pytest.mark.parametrize("flags", [["--recipe", "slow"], ["--recipe"]])
def test_a_recipe_that_is_none_ends_in_one_line(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(flags)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1 and "--recipe" in error


@pytest.mark.usefixtures("small_synthetic")
def test_the_optimizer_is_the_recipes() -> None:
    data = datasets.load("synthetic")
    for name, recipe in RECIPES.items():
        config = TrainConfig(depth=8, dataset="synthetic", recipe=name)
        net = build_net(config, data, 0, "float32")
        optimizer = training_model(config, data, net).optimizer
        assert optimizer.nesterov is recipe.nesterov
        assert optimizer.momentum == recipe.momentum
        assert optimizer.coupled_weight_decay == recipe.weight_decay
        assert float(optimizer.learning_rate) == pytest.approx(0.1 if name == "paper" else 0.0)


# --- what a resume compares -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(folder of a whole run, folder of the same run without its end: its checkpoint is of update 4)."""
    output = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SYNTHETIC_SIZES", (2_000, 500))
        flags = ["--steps", 8, "--eval-every", 2, "--checkpoint-every", 4, "--output-dir", output]
        assert run(*flags, "--name", "x") == 0
    whole = output / "x" / "seed-0"
    half = output / "half" / "x" / "seed-0"
    shutil.copytree(whole, half)
    for name in ("results.json", "model.keras", "checkpoints/step-00000008.npz"):
        (half / name).unlink()
    return whole, half


def resume(folder: Path, *flags: object) -> int:
    own = ["--steps", 8, "--eval-every", 2, "--checkpoint-every", 4, "--name", "x"]
    return run(*own, "--output-dir", folder.parent.parent, *flags)


def as_0_1_0(folder: Path) -> None:
    """Write config.json and checkpoints as version 0.1.0 did."""
    config = json.loads((folder / "config.json").read_text())
    config["settings"] = {k: v for k, v in config["settings"].items() if k in SETTINGS_OF_0_1_0}
    (folder / "config.json").write_text(json.dumps(config))
    for path in checkpoints.list_checkpoints(folder):
        arrays, state = checkpoints.load_checkpoint(path)
        slots = [key for key in arrays if key.startswith("optimizer/")]
        assert slots and "optimizer/0" not in slots
        by_position = {f"optimizer/{i}": arrays.pop(key) for i, key in enumerate(slots)}
        checkpoints.save_checkpoint(folder, state["step"], {**arrays, **by_position}, state)


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder.parent.parent, target, dirs_exist_ok=True)
    return target / "x" / "seed-0"


def test_every_setting_that_is_new_since_0_1_0_has_the_value_of_that_time() -> None:
    new = TrainConfig().settings().keys() - SETTINGS_OF_0_1_0 - set(PLACES)
    assert new == BEFORE.keys()
    paper = TrainConfig().settings()
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
    one, other = (
        checkpoints.load_checkpoint(f / "checkpoints/step-00000008.npz")[0] for f in (whole, folder)
    )
    assert one.keys() == other.keys()
    assert [key for key in one if not np.array_equal(one[key], other[key])] == []


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
        "--recipe paper there, fast now", "`schedule` step there, cosine now",
        "`nesterov` False there, True now",
    ):  # fmt: skip
        assert part in error
    assert "--learning-rate" not in error
    assert (folder / "metrics.csv").read_bytes() == before


@pytest.mark.usefixtures("small_synthetic")
def test_a_setting_that_only_the_run_knows_is_compared_too(
    stopped: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(stopped[1], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["label_smoothing"] = 0.1
    (folder / "config.json").write_text(json.dumps(config))
    assert resume(folder) == 2
    assert "`label_smoothing` 0.1 there, None now" in capsys.readouterr().err


@pytest.mark.usefixtures("small_synthetic")
def test_slots_that_changed_places_in_the_file_are_found_by_path(
    stopped: tuple[Path, Path], tmp_path: Path
) -> None:
    whole, half = stopped
    folder = copy_of(half, tmp_path)
    (path,) = checkpoints.list_checkpoints(folder)
    arrays, state = checkpoints.load_checkpoint(path)
    checkpoints.save_checkpoint(folder, state["step"], dict(reversed(arrays.items())), state)
    assert resume(folder) == 0
    one, other = (
        checkpoints.load_checkpoint(f / "checkpoints/step-00000008.npz")[0] for f in (whole, folder)
    )
    assert [key for key in one if not np.array_equal(one[key], other[key])] == []
