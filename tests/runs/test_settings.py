"""Settings from a file: a TOML file, and the config.json of a run, which repeats it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import keras_resnet
from keras_resnet.recipes import FAST, PAPER
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunFolder
from keras_resnet.runs.run import read_run, read_settings, runs_of
from tests.helpers import REPOSITORY, call

PAGE = (REPOSITORY / "docs/resuming.md").read_text()
FLAGS = (
    "--depth 8 --dataset synthetic --val-size 100 --batch-size 8 --steps 8 --runs 1 --eval-every 2"
)


def block(language):
    """The example in this language on the page about run folders."""
    return PAGE.partition(f"```{language}\n")[2].partition("```")[0]


def test_a_file_gives_settings_flags_win_and_config_json_repeats_the_run(
    tmp_path, monkeypatch, small_synthetic
):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(block("toml"))
    assert call("train", "--config", "mine.toml", *FLAGS.split()) == 0
    first = Path("experiments/resnet8-synthetic-cosine/seed-0")
    run = read_run(first)
    changes = {"schedule": "cosine", "nesterov": True, "weight_decay": 5e-4}
    recipe = dataclasses.replace(PAPER.resolve(8, steps=8, batch_size=8), **changes)
    assert run.recipe.settings() == recipe.settings() and run.config.depth == 8
    again = ["train", "--config", first / "config.json", "--output-dir", "again"]
    assert call(*again) == 0
    second = RunFolder(Path("again") / first.relative_to("experiments"))
    for one, other in zip(RunFolder(first).read_metrics(), second.read_metrics(), strict=True):
        assert {**one, "images_per_second": 0} == {**other, "images_per_second": 0}
    assert second.path.joinpath("results.json").exists()


def test_a_recipe_of_ones_own_in_python(monkeypatch):
    configs = []
    monkeypatch.setattr(keras_resnet, "train", configs.append, raising=False)
    exec(block("python"), {})
    recipe = configs[0].resolve_recipe()
    assert (recipe.name, recipe.schedule, recipe.nesterov) == ("cosine", "cosine", True)
    assert configs[0].experiment == "resnet56-cosine"


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(depth=110, steps=1_000, warmup_steps=400),
        TrainConfig(recipe="fast", learning_rate=0.1),
        TrainConfig(recipe=dataclasses.replace(FAST, name="mine", kernel_rate=None), momentum=0.8),
    ],
)
def test_a_run_folder_gives_its_settings_back(config, tmp_path):
    (run,) = runs_of(dataclasses.replace(config, output_dir=tmp_path))
    run.folder.write_config({"settings": run.settings()})
    there = read_run(run.folder.path)
    assert there.settings() == run.settings() and there.recipe.settings() == run.recipe.settings()
    assert str(there) == str(run)
    if isinstance(config.recipe, str):  # what it gives does not stand in the way of another depth
        given = read_settings(run.folder.path / "config.json")
        assert given["warmup_steps"] == config.warmup_steps and given["momentum"] is None


def test_what_a_file_says_is_checked_together_with_the_flags(tmp_path):
    for text, flags in (
        ("freeze = true", {"weights": "resnet20"}),
        ("image_size = 64", {"dataset": "photos"}),
        ("warmup_steps = 40_000", {"steps": 100_000}),
        ("[recipe]\nsteps = 10", {}),
        ("weights = '.'", {}),
        ("\ufeffdepth = 56", {}),  # a byte order mark, as Windows' editors write it
    ):
        (tmp_path / "file.toml").write_text(text, "utf-8")
        TrainConfig(**{**read_settings(tmp_path / "file.toml"), **flags})


def test_a_warm_up_that_a_file_gives_is_taken_at_every_depth(tmp_path):
    (path := tmp_path / "file.toml").write_text(
        'depth = 8\nsteps = 30\n[recipe]\nname = "mine"\nschedule = "cosine"\nwarmup_steps = 5'
    )
    recipe = TrainConfig(**read_settings(path)).resolve_recipe()
    assert (recipe.steps, recipe.warmup_steps) == (30, 5)


def test_what_is_wrong_in_the_file_is_named(tmp_path, refused):
    path = tmp_path / "file.toml"
    for text, told in (
        ("dpeth = 20", "dpeth is not a setting; did you mean depth?"),
        ("depth = '20'", "depth must be a whole number"),
        ("[recipe]\nrate = 1", "rate is not a setting"),
        ("[recipe]\nname = 'a/b'", "name must be a folder name"),
        ("depth: 20", "must be TOML in UTF-8: "),
        ("batch-size = 8\nbatch_size = 9", "given twice"),
        ("steps = 8.5", "steps must be a whole number. Received: 8.5"),
        ("[recipe]\nschedule = 'linear'", "schedule must be step or cosine. Received: linear"),
        ("[recipe]\nbatch_size = true", "batch_size must be a whole number. Received: True"),
    ):
        path.write_text(text)
        error = refused("train", "--config", path)
        assert str(path) in error and told in error and error.count("Received") < 2
    assert "which does not exist" in refused("train", "--config", tmp_path / "none.toml")
