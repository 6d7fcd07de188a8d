"""What a run folder that is there already means: a finished run, one to go on with, or another one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_resnet import cli, environment, runs
from keras_resnet.cli import UserError
from keras_resnet.config import TrainConfig
from keras_resnet.recipes import PAPER

# Settings that may differ when a run is resumed: they do not change its numbers.
PLACES = ("data_dir", "output_dir", "name", "runs", "seed", "precision")
# What a run did whose config.json does not say it: 0.1.0 knew the paper's recipe alone.
BEFORE = {
    "recipe": "paper",
    "schedule": PAPER.schedule,
    "warmup_shape": PAPER.warmup_shape,
    "nesterov": PAPER.nesterov,
}


def settle(config: TrainConfig, folder: Path) -> tuple[str, str]:
    """Precision of the run and the reason for it.

    "auto" means the precision the run began with: a run that moves to another machine goes on as it was.

    Raises:
        UserError: where the folder holds a run with other settings.
    """
    precision, reason = environment.precision(config.precision)
    if not runs.exists(folder / "config.json"):
        return precision, reason
    old = _read(folder / "config.json", ("settings", "precision"))
    new = config.settings()
    differences = []
    if config.precision == "auto":
        precision, reason = old["precision"], "as this run began"
    elif precision != old["precision"]:
        differences.append(f"--precision {old['precision']} there, {precision} now")
    there = {**BEFORE, **old["settings"]}
    for key in {**there, **new}:  # also what only one of the two programs knows
        if key not in PLACES and there.get(key) != new.get(key):
            flag = key.replace("_", "-")
            differences.append(f"--{flag} {there.get(key)} there, {new.get(key)} now")
    if differences:
        raise UserError(
            f"{folder} holds a run with other settings: {'; '.join(differences)}. Give the same "
            "settings to resume it, another --name, or --restart to move it aside and start over"
        )
    return precision, reason


def say_what_changed(folder: Path) -> None:
    """Print what differs from where this run began: its bits may not be repeatable then."""
    old = _read(folder / "config.json", ("versions", "device"))
    kind, name = environment.device()
    facts = [
        ("another versions", old["versions"], environment.versions()),
        ("another device", old["device"], {"kind": kind, "name": name}),
    ]
    if kind == "CPU":  # on a GPU nothing of the training depends on it
        other = "another" if "onednn" in old else "perhaps another"
        there = old.get("onednn", "not recorded")
        facts.append((f"{other} use of oneDNN", there, environment.onednn()))
    for what, there, now in facts:
        if there != now:
            cli.tell(f"note: this run began with {what} ({there}): not exactly repeatable")


def results(folder: Path) -> dict[str, Any] | None:
    """results.json of a finished run; None where the run is not finished."""
    if not runs.exists(folder / "results.json"):
        return None
    _read(folder / "config.json", ("settings", "precision"))  # whose results they are
    return _read(folder / "results.json", ("test_error", "steps"))


def missing_checkpoints(folder: Path, found: tuple[Any, dict[str, Any]] | None) -> list[str]:
    """What metrics.csv says of checkpoints that must have been there and are not.

    Args:
        folder: the run folder.
        found: what `runs.newest_checkpoint` found.

    Raises:
        UserError: where none is left. Nothing is deleted.
    """
    rows = runs.read_metrics(folder)
    every = _read(folder / "config.json", ("settings",))["settings"]["checkpoint_every"]
    written = int(rows[-1]["step"] or 0) // every * every if rows else 0
    if found is None and written:
        raise UserError(
            f"{folder} has metrics up to update {rows[-1]['step']:.0f}, but its checkpoints are gone. "
            "Nothing was deleted; --restart moves this run aside and starts over"
        )
    if found is not None and found[1]["step"] < written and len(runs.checkpoints(folder)) == 1:
        return [f"the checkpoint of update {written} is missing"]
    return []


def summarize(experiment: Path, folder: Path) -> None:
    """Write and print mean and sample standard deviation over the finished seeds of `folder`'s recipe."""
    recipe = _recipe(_read(folder / "config.json", ("settings", "precision")))
    finished = {}
    for path in experiment.glob("seed-*/results.json"):
        config = runs.read_json(path.parent / "config.json") or {}
        seed = path.parent.name.removeprefix("seed-")
        if seed.isdigit() and "settings" in config and _recipe(config) == recipe:
            finished[int(seed)] = _read(path, ("test_error",))["test_error"]
    errors = [finished[seed] for seed in sorted(finished)]
    summary = {
        "test_error_mean": round(statistics.mean(errors), 4),
        "test_error_std": round(statistics.stdev(errors), 4) if len(errors) > 1 else None,
        "runs": len(errors),
        "seeds": sorted(finished),
        "test_errors": errors,
    }
    runs.write_json(experiment / "summary.json", summary)
    if len(errors) > 1:
        cli.tell(
            f"test error {summary['test_error_mean']:.2f} +- {summary['test_error_std']:.2f} % "
            f"(mean and sample std of {len(errors)} runs, seeds {summary['seeds']})"
        )


def _recipe(config: dict[str, Any]) -> dict[str, Any]:
    """What decides a run's numbers, but for its seed; from the content of config.json."""
    settings = {k: v for k, v in {**BEFORE, **config["settings"]}.items() if k not in PLACES}
    return {**settings, "precision": config["precision"]}


def _read(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """A JSON file of a run folder that must have these keys."""
    value = runs.read_json(path)
    if not isinstance(value, dict) or not value.keys() >= set(keys):
        raise UserError(
            f"{path} must be a file of this program, with {', '.join(keys)}; use another --name, or "
            "--restart to move the run aside and start over"
        )
    return value
