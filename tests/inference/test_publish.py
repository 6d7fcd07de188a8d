"""`python -m tools.publish`: what it takes and what it refuses; test_zoo.py publishes every net again."""

import json
import math
import shutil

import pytest

import keras_resnet
from keras_resnet.commands import terminal
from keras_resnet.inference import zoo
from keras_resnet.inference.zoo import WEIGHTS
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.run import runs_of
from tools import publish

SHIPPED = WEIGHTS / "resnet20-cifar10"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A registry without a net, from which names are taken."""
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path / "weights")
    return tmp_path / "weights"


def call(*arguments):
    return terminal.run(lambda: publish.main([str(a) for a in arguments]))


def make_run(folder, net, **settings):
    """A finished run as `train.py` leaves it, with a net that was never trained."""
    folder.mkdir(parents=True)
    (run,) = runs_of(config := TrainConfig(**settings))
    example = json.loads((SHIPPED / "config.json").read_text())
    stored = {**example, "settings": {**run.settings(), "data_dir": "/somewhere/else"}}
    results = {
        **json.loads((SHIPPED / "results.json").read_text()),
        "steps": run.recipe.steps, "recipe": config.recipe, "model": config.model,
        "depth": config.depth, "seed": config.seed, "val_error": 9.0, "test_error": 50.0,
    }  # fmt: skip
    net.save(folder / "model.keras")
    results["parameters"] = sum(math.prod(w.shape) for w in net.trainable_weights)
    (folder / "config.json").write_text(json.dumps(stored))
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_another_net_joins_and_another_run_is_refused(tmp_path, weights, capsys):
    net, stored = keras_resnet.plain(20), tmp_path / "results/seed-0"
    runs = [make_run(tmp_path / f"{k}", net, model="plain", seed=k) for k in range(2)]
    for run in (runs[0], SHIPPED, runs[0]):  # the same run may be published again
        assert call(run, "--output", weights) == 0
    assert [entry.name for entry in zoo.entries()] == ["resnet20", "plain20"]
    assert call(runs[1], "--output", weights) == 2
    assert "plain20-cifar10 must not hold another run" in capsys.readouterr().err
    assert zoo.entries()[1].seed == 0
    assert keras_resnet.Classifier.load("plain20").path.parent == weights / "plain20-cifar10"
    assert "It is the only run" in (weights / "plain20-cifar10/MODEL_CARD.md").read_text()
    assert call(runs[0], "--results", stored) == 0
    assert call(runs[1], "--results", stored) == 2
    assert "/somewhere" not in (stored / "config.json").read_text()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"learning_rate": 3.0}, "learning_rate 3.0"),
        ("config.json", {"git_commit": "0" * 40 + "+changes"}, "+changes' in config.json"),
        ("results.json", {"val_error": None}, "val_error None"),
        ("model.keras", None, "must hold model.keras"),
        ("model.keras", {"depth": 8}, "a net of depth 8"),
    ],
)
def test_other_runs_are_not_published(tmp_path, capsys, file, change, message):
    run = shutil.copytree(SHIPPED, tmp_path / "run")
    if change is None:
        (run / file).unlink()
    elif file == "model.keras":
        keras_resnet.resnet(**change).save(run / file)
    else:
        content = json.loads((run / file).read_text())
        for key, value in change.items():
            (content if key in content else content["settings"])[key] = value
        (run / file).write_text(json.dumps(content))
    assert call(run, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
