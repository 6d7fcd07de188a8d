"""Recipes as data: their numbers at the boundaries, what overrides them, what a resume compares."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from keras_resnet import learning_rate_schedule, recipes
from keras_resnet.recipes import FAST, FAST_0_2, PAPER, RECIPES
from keras_resnet.recipes.schedules import schedule_of
from keras_resnet.runs import checkpoint
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.resume import BEFORE, CHANGEABLE
from keras_resnet.runs.run import read_run, runs_of
from tests.helpers import REPOSITORY, contents, train

EVERY = ("--eval-every=2", "--checkpoint-every=4")

SETTINGS_OF_0_1_0 = {
    "model", "depth", "shortcut", "dataset", "data_dir", "val_size", "steps", "batch_size",
    "learning_rate", "warmup_steps", "weight_decay", "momentum", "precision", "seed", "runs",
    "eval_every", "checkpoint_every", "output_dir", "name",
}  # fmt: skip


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [
        (0, 0.0), (1, 0.0002), (500, 0.1), (999, 0.1998), (1_000, 0.2),
        (8_500, 0.1),  # halfway down
        (15_900, 2.19e-5), (15_999, 0.0), (16_000, 0.0),
    ],
)  # fmt: skip
def test_the_rate_of_fast_at_its_boundaries(iteration, rate):
    """A sixteenth of the updates up, then a cosine; as in version 0.2. At 110 layers as at 20."""
    for recipe in (FAST, FAST_0_2):
        for depth in (20, 110):
            schedule = schedule_of(recipe.resolve(depth, steps=16_000))
            assert float(schedule(iteration)) == pytest.approx(rate, rel=1e-2, abs=1e-9)


def test_the_paper_is_the_default_and_is_its_schedule():
    config = TrainConfig()
    assert config.recipe == "paper"
    assert config.resolve_recipe() == PAPER.resolve(20)
    assert (PAPER.steps, PAPER.batch_size, PAPER.learning_rate) == (64_000, 128, 0.1)
    assert (PAPER.momentum, PAPER.nesterov, PAPER.weight_decay) == (0.9, False, 1e-4)
    ours = schedule_of(TrainConfig(depth=110).resolve_recipe())
    for schedule in (ours, learning_rate_schedule(warmup_steps=400)):
        rates = [float(schedule(n)) for n in (0, 399, 400, 31_999, 32_000, 47_999, 48_000)]
        assert rates == pytest.approx([0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001])
    assert float(learning_rate_schedule()(0)) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="`warmup_steps` must be .* below half"):
        learning_rate_schedule(steps=100, warmup_steps=50)


def test_every_number_can_be_overridden_and_is_stored_as_it_was_used():
    given = {
        "steps": 100, "batch_size": 7, "learning_rate": 0.3, "warmup_steps": 9,
        "weight_decay": 2e-4, "momentum": 0.8, "crop_padding": 3,
    }  # fmt: skip
    for name in RECIPES:
        settings = runs_of(TrainConfig(recipe=name, **given))[0].settings()
        assert settings["recipe"] == name and settings.items() >= given.items()
        missing = {key for key in RECIPES[name].settings() if settings[key] is None}
        assert missing == (set() if name == "fast" else {"kernel_rate"})


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ({"crop_padding": -1}, "`crop_padding` must be 0 to 1000. Received: -1"),
        ({"crop_padding": 1.5}, "`crop_padding` must be a whole number"),
        ({"momentum": 1.0}, "`momentum` must be 0 or more and below 1. Received: 1.0"),
        ({"warmup_steps": 5_000}, "`warmup_steps` must be .* below half of steps=10000"),
        (
            {"recipe": dataclasses.replace(PAPER, steps=1e4)},
            "`steps` must be a whole number. Received: 10000.0",
        ),
        ({"steps": 3}, "`steps` must be 4 to 1000000000. Received: 3"),
        ({"recipe": "slow"}, "`recipe` must be one of paper, fast, fast-0.2. Received: slow"),
    ],
)  # fmt: skip
def test_a_number_that_makes_no_sense_is_refused(number, expected):
    with pytest.raises(ValueError, match=expected):
        TrainConfig(**{"recipe": "fast", **number})
    with pytest.raises(ValueError, match="None without Nesterov momentum, which Muon needs"):
        dataclasses.replace(PAPER, kernel_rate=0.02)
    with pytest.raises(ValueError, match="`schedule` must be step or cosine. Received: linear"):
        dataclasses.replace(FAST, schedule="linear")
    with pytest.raises(ValueError, match="`kernel_rate` must be .*Received: -1"):
        dataclasses.replace(FAST, kernel_rate=-1)


def test_what_was_changed_is_told():
    def told(**flags):
        config = TrainConfig(**flags)
        return recipes.describe_changes(config.resolve_recipe(), config.depth)

    assert told(recipe="fast", steps=8_000) == "fast, but steps 8,000 (10,000)"
    changed = told(depth=110, weight_decay=5e-4, warmup_steps=0)
    assert changed == "paper, but warmup steps 0 (400), weight decay 0.0005 (0.0001)"


def stop_and_finish(output, *flags):
    """The run of a folder, whose last checkpoint is of update 4; and the arrays that it must end with."""
    assert train(output, *EVERY, *flags) == 0
    folder = output / "x/seed-0"
    end = checkpoint.load(folder / "checkpoints/step-00000008.npz")[0]
    for name in ("results.json", "model.keras", "checkpoints/step-00000008.npz"):
        (folder / name).unlink()
    return folder, end


def assert_ends(folder, end):
    found = checkpoint.load(folder / "checkpoints/step-00000008.npz")[0]
    assert found.keys() == end.keys()
    assert [key for key in end if not np.array_equal(end[key], found[key])] == []


def as_0_1_0(folder):
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


def as_0_2_0(folder):
    """Write a run of fast-0.2 as version 0.2.0 did, where the recipe's name was fast."""

    def settings_of_0_2_0(settings):
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


def test_every_setting_that_is_new_since_0_1_0_has_the_value_of_that_time():
    paper = runs_of(TrainConfig())[0].settings()
    new = paper.keys() - SETTINGS_OF_0_1_0 - set(CHANGEABLE)
    assert new == BEFORE.keys()
    assert {key: paper[key] for key in new} == BEFORE


def test_a_run_of_0_1_0_is_resumed_to_the_same_bits(tmp_path, capsys, small_synthetic):
    """Its settings are compared too, where it does not name them."""
    folder, end = stop_and_finish(tmp_path)
    as_0_1_0(folder)
    before = contents(folder)
    same = ["--recipe=fast", "--learning-rate=0.1", "--weight-decay=1e-4", "--warmup-steps=0"]
    assert train(tmp_path, *EVERY, *same) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--learning-rate" not in error
    for part in ("--recipe paper there, fast now", "schedule step there, cosine now"):
        assert part in error
    assert contents(folder) == before
    assert train(tmp_path, *EVERY) == 0
    assert "resuming at update 4 of 8" in capsys.readouterr().out
    assert_ends(folder, end)


def test_a_run_of_fast_of_0_2_0_is_resumed_as_fast_0_2(tmp_path, capsys, small_synthetic):
    folder, end = stop_and_finish(tmp_path, "--recipe=fast-0.2")
    as_0_2_0(folder)
    # The same command as in 0.2.0 now asks for other numbers, and is refused before anything is read.
    before = contents(folder)
    assert train(tmp_path, *EVERY, "--recipe=fast") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in (
        "--recipe fast-0.2 there, fast now", "kernel_rate None there, 0.02 now",
        "--crop-padding 4 there, 2 now",
    ):  # fmt: skip
        assert part in error
    assert contents(folder) == before
    assert train(tmp_path, *EVERY, "--recipe=fast-0.2") == 0
    assert "resuming at update 4 of 8" in capsys.readouterr().out
    assert_ends(folder, end)


def test_each_published_run_is_of_the_recipe_that_its_folder_names():
    """Also those of 0.2.0, whose config.json says `fast`."""
    seen = set()
    for folder in REPOSITORY.glob("results/*-fast*/seed-*"):
        published = read_run(folder)
        name = folder.parent.name
        recipe = FAST_0_2 if name.endswith("-fast-0.2") else FAST
        if name.endswith("-32k-all"):
            recipe = recipe.resolve(published.config.depth, steps=32_000)
            assert published.config.val_size == 0
        assert published.config.recipe == recipe.name and published.recipe == recipe, folder
        seen.add(recipe.name)
    assert seen == {"fast", "fast-0.2"}
