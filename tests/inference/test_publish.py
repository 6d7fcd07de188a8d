"""`python -m tools.publish`: what it takes, what it chooses, and the way back by name."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_resnet
from keras_resnet.commands import terminal
from keras_resnet.inference import zoo
from keras_resnet.inference.zoo import WEIGHTS
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.run import runs_of
from tools import publish
from tools.publish import NETS, command

SHIPPED = WEIGHTS / "resnet20-cifar10"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo without a net, from which names are taken."""
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path / "weights")
    return tmp_path / "weights"


def call(*arguments: object) -> int:
    return terminal.run(lambda: publish.main([str(a) for a in arguments]))


def make_run(folder: Path, net: Any = None, val_error: float = 9.0, **settings: Any) -> Path:
    """A finished run as `train.py` leaves it, with a net that was never trained, or without one."""
    folder.mkdir(parents=True)
    (run,) = runs_of(config := TrainConfig(**settings))
    example = json.loads((SHIPPED / "config.json").read_text())
    stored = {**example, "settings": {**run.settings(), "data_dir": "/somewhere/else"}}
    results = {
        **json.loads((SHIPPED / "results.json").read_text()),
        "steps": run.recipe.steps, "recipe": config.recipe, "model": config.model,
        "depth": config.depth, "seed": config.seed, "val_error": val_error, "test_error": 50.0,
    }  # fmt: skip
    if net is not None:
        net.save(folder / "model.keras")
        results["parameters"] = sum(math.prod(w.shape) for w in net.trainable_weights)
    (folder / "config.json").write_text(json.dumps(stored))
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"model": "plain", "depth": 20, "steps": 8000, "seed": 3},
            "python train.py --model plain --depth 20 --steps 8000 --seed 3",
        ),
        ({"depth": 32, "recipe": "fast"}, "python train.py --recipe fast --depth 32"),
    ],
)
def test_what_was_published_is_loaded_by_name(
    tmp_path: Path, weights: Path, settings: dict[str, Any], words: str
) -> None:
    config = TrainConfig(**settings)
    build = getattr(keras_resnet, config.model)
    net = build(config.depth, seed=5)
    assert call(make_run(tmp_path / "run", net, **settings), "--output", weights) == 0
    (entry,) = zoo.entries()
    assert (entry.name, entry.steps) == (
        config.experiment.split("-")[0],
        config.resolve_recipe().steps,
    )
    assert command(entry) == words
    assert {path.name for path in weights.rglob("*")} == {
        f"{entry.name}-cifar10", "MODEL_CARD.md", "config.json", "model.keras", "registry.json",
        "results.json",
    }  # fmt: skip
    card = (weights / entry.file).with_name("MODEL_CARD.md").read_text()
    assert words in card and "It is the only run" in card
    assert "/somewhere" not in (weights / entry.file).with_name("config.json").read_text()
    again = build(depth=config.depth, weights="cifar10")
    for ours, stored in zip(again.get_weights(), net.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, stored)
    classifier = keras_resnet.Classifier.load(entry.name)
    assert classifier.class_names[:2] == ("airplane", "automobile")


def test_the_lowest_validation_error_is_taken_and_the_others_named(
    tmp_path: Path, weights: Path
) -> None:
    shutil.copytree(SHIPPED, tmp_path / "a")  # validation error 7.88
    runs = [
        make_run(tmp_path / "b", val_error=12.5, recipe="fast", seed=2),
        tmp_path / "a",
        make_run(tmp_path / "c", val_error=10.0, seed=1),
    ]
    (shipped,) = [entry for entry in zoo.entries(WEIGHTS) if entry.name == "resnet20"]
    assert call(*runs, "--output", weights) == 0
    (entry,) = zoo.entries()
    assert entry.sha256 == shipped.sha256 and entry.seed == shipped.seed
    assert [(run.recipe, run.seed, run.val_error) for run in entry.candidates] == [
        (shipped.recipe, shipped.seed, shipped.val_error), ("paper", 1, 10.0), ("fast", 2, 12.5),
    ]  # fmt: skip
    card = (weights / entry.file).with_name("MODEL_CARD.md").read_text()
    assert "Of 3 runs" in card and "| `paper` | 64,000 | 1 | 10.00 |" in card


def test_another_net_joins_and_another_run_is_refused(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        make_run(tmp_path / f"{k}", keras_resnet.plain(20), model="plain", seed=k) for k in range(2)
    ]
    for run in (runs[0], SHIPPED, runs[0]):  # the same run may be published again
        assert call(run, "--output", weights) == 0
    assert [entry.name for entry in zoo.entries()] == ["resnet20", "plain20"]
    assert call(runs[1], "--output", weights) == 2
    assert "plain20-cifar10 must not hold another run" in capsys.readouterr().err
    assert zoo.entries()[1].seed == 0
    stored = tmp_path / "results/seed-0"
    assert call(runs[0], "--results", stored) == 0
    assert call(runs[1], "--results", stored) == 2
    assert "/somewhere" not in (stored / "config.json").read_text()


def changed(part: str, **values: Any) -> dict[str, Any]:
    """The shipped run's config.json or results.json with other values; None takes a key away."""
    content = json.loads((SHIPPED / f"{part}.json").read_text())
    settings = part == "config" and not {"class_names", "git_commit"} & set(values)
    target = content["settings"] if settings else content
    target.update(values)
    return {f"{part}.json": {key: value for key, value in content.items() if value is not None}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (changed("config", learning_rate=3.0), "learning_rate 3.0"),
        (changed("config", warmup_steps=2), "warmup_steps 2"),
        (changed("config", dataset="synthetic"), "dataset 'synthetic'"),
        (changed("config", recipe="slow"), "recipe"),
        (changed("config", depth=26), "depth 26"),
        (changed("config", steps="many"), "steps"),
        (changed("config", class_names=None), "class_names None"),
        (changed("results", test_error=None), "'test_error'"),
        (changed("results", val_error=None), "val_error None"),
        (changed("results", steps=15_500), "steps 15500 in results.json"),
        (changed("results", git_commit="0" * 40 + "+changes"), "+changes' in results"),
        (changed("config", git_commit="0" * 40 + "+changes"), "+changes' in config.json"),
        ({"results.json": []}, "results.json"),
        ({"results.json": None}, "results.json"),
        ({"model.keras": None}, "must hold model.keras"),
        ({"model.keras": 8}, "a net of depth 8"),
    ],
)
def test_other_runs_are_not_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, Any], message: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(SHIPPED, run)
    for name, content in files.items():
        if content is None:
            (run / name).unlink()
        elif name == "model.keras":
            keras_resnet.resnet(content).save(run / name)
        else:
            (run / name).write_text(json.dumps(content))
    assert call(run, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_runs_of_two_nets_are_no_candidates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(SHIPPED, make_run(tmp_path / "b", depth=56), "--output", tmp_path / "out") == 2
    assert "resnet20, resnet56" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", ["paper", "fast"])
@pytest.mark.parametrize(
    ("model", "depth"), [(model, depth) for model in NETS for depth in NETS[model]]
)
def test_every_net_of_the_paper_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, depth: int, recipe: str
) -> None:
    """As far as the run's own files; its net, which is missing here, is read last."""
    run = make_run(tmp_path / "run", model=model, depth=depth, recipe=recipe, steps=9000)
    assert call(run, "--output", tmp_path / "out") == 2
    assert "must hold model.keras" in capsys.readouterr().err
