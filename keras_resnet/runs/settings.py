"""Which settings decide a run's numbers: the one table that resuming, averaging and the report share."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_resnet.recipes import PAPER
from keras_resnet.runs.folder import RunConfig

# Where a run lies, which of several it is and what it trains on: they change no more than roundings.
PLACES = ("data_dir", "output_dir", "name", "runs", "seed", "precision", "devices")
# How often it looks and saves: the weights are the same, but not the rows of metrics.csv.
INTERVALS = ("eval_every", "checkpoint_every")
# What a run did whose config.json does not say it: 0.1.0 knew the paper's recipe alone.
BEFORE = {
    "recipe": "paper",
    "schedule": PAPER.schedule,
    "warmup_shape": PAPER.warmup_shape,
    "nesterov": PAPER.nesterov,
}


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a run that goes on may not change: "`depth` 20 there, 56 now", for each setting that differs.

    Args:
        there: settings of the run that was begun, of this or an earlier version.
        now: settings that are asked for.
    """
    there = {**BEFORE, **there}
    return [
        f"`{key}` {there.get(key)} there, {now.get(key)} now"
        for key in {**there, **now}  # also what only one of the two programs knows
        if key not in PLACES and there.get(key) != now.get(key)
    ]


FOLDER_FLAGS = ("--data-dir", "--output-dir", "--output", "--runs-dir")


def without_folders(config: RunConfig) -> RunConfig:
    """The same, as it may be published: without the folders of the machine that made it."""
    settings = {k: v for k, v in config["settings"].items() if k not in ("data_dir", "output_dir")}
    published: RunConfig = {**config, "settings": settings}
    if "command" in config:
        published["command"] = command_without_folders(config["command"])
    return published


def command_without_folders(command: str) -> str:
    """A command line without the flags that name folders, and with scripts by their names alone."""
    kept: list[str] = []
    try:
        words = iter(shlex.split(command))
    except ValueError:  # written by hand: a quotation that does not end
        return ""
    for word in words:
        if word in FOLDER_FLAGS:
            next(words, None)
        elif not word.startswith(tuple(f"{flag}=" for flag in FOLDER_FLAGS)):
            is_script = word.endswith(".py") or word.endswith("keras-resnet")
            kept.append(Path(word).name if is_script and Path(word).is_absolute() else word)
    return shlex.join(kept)


def decisive(config: RunConfig) -> dict[str, Any]:
    """What decides a run's weights, but for its seed: runs that agree in it may be averaged."""
    settings = {**BEFORE, **config["settings"]}
    kept = {k: v for k, v in settings.items() if k not in (*PLACES, *INTERVALS)}
    return {**kept, "precision": config.get("precision")}
