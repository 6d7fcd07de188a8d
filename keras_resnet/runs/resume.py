"""The resume rule: which settings a run that goes on may change, and which decide its numbers.

Resuming, averaging over seeds and the report share this one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_resnet.recipes import PAPER
from keras_resnet.runs.folder import RunConfig

# What may be another: where a run lies, which of several it is, and what it trains on. The setting
# `precision` is among them because "auto" means another on another machine: the one it came to stands
# beside the settings in config.json, where `training.plan` and `decisive` compare it.
PLACES = ("data_dir", "output_dir", "name", "runs", "seed", "precision", "devices")
# How often it looks and saves: the weights are the same, but not the rows of metrics.csv.
INTERVALS = ("eval_every", "checkpoint_every")
# What a run did whose config.json does not say it: 0.1.0 knew the paper's recipe alone, 0.2.0 no Muon.
BEFORE = {
    "recipe": "paper",
    "schedule": PAPER.schedule,
    "warmup_shape": PAPER.warmup_shape,
    "nesterov": PAPER.nesterov,
    "kernel_rate": PAPER.kernel_rate,
    "crop_padding": PAPER.crop_padding,
}


def upgraded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run of any version, as this version would write them."""
    settings = dict(settings)
    if settings.get("recipe") == "fast" and "crop_padding" not in settings:
        settings["recipe"] = "fast-0.2"  # what `fast` meant in 0.2.0
    return {**BEFORE, **settings}


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a run that goes on may not change: "`depth` 20 there, 56 now", for each setting that differs.

    Args:
        there: settings of the run that was begun, of this or an earlier version.
        now: settings that are asked for.
    """
    there = upgraded(there)
    return [
        f"`{key}` {there.get(key)} there, {now.get(key)} now"
        for key in {**there, **now}  # also what only one of the two programs knows
        if key not in PLACES and there.get(key) != now.get(key)
    ]


def decisive(config: RunConfig) -> dict[str, Any]:
    """What decides a run's weights, but for its seed: runs that agree in it may be averaged."""
    settings = upgraded(config["settings"])
    kept = {k: v for k, v in settings.items() if k not in (*PLACES, *INTERVALS)}
    return {**kept, "precision": config.get("precision")}
