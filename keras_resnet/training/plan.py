"""What a run will be: settings, machine and what lies in its folder, resolved once before it trains."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import keras

from keras_resnet.errors import UserError
from keras_resnet.recipes import Recipe
from keras_resnet.runs import files, resume
from keras_resnet.runs.folder import RunConfig, RunFolder, RunResults
from keras_resnet.training import devices
from keras_resnet.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """One seed of an experiment.

    Attributes:
        config: the settings that were asked for.
        recipe: what it trains with.
        seed: of this run.
        folder: its run folder.
        precision: Keras dtype policy, and the reason for it.
        began_with: config.json of the run that is to go on; None for a new one.
        results: results.json of a run that is finished.
    """

    config: TrainConfig
    recipe: Recipe
    seed: int
    folder: RunFolder
    precision: str
    reason: str
    began_with: RunConfig | None = None
    results: RunResults | None = None

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.results is not None

    def renew(self) -> RunPlan:
        """This plan as it is now, with the lock held: another process may have been here meanwhile."""
        if self.folder.read_config() == self.began_with and self.folder.read_results() is None:
            return self
        return _resolve(self.config, self.seed, self.folder)


def plan_runs(config: TrainConfig, restart: bool = False) -> list[RunPlan]:
    """The runs of an experiment, one for each seed. Nothing is written.

    Args:
        config: the settings.
        restart: whether what lies in the folders will be moved aside.

    Raises:
        UserError: where a folder holds a run with other settings, or files that make no sense.
    """
    experiment = experiment_folder(config)
    plans = []
    for seed in range(config.seed, config.seed + config.runs):
        folder = RunFolder(experiment / f"seed-{seed}")
        plans.append(_new(config, seed, folder) if restart else _resolve(config, seed, folder))
    return plans


def experiment_folder(config: TrainConfig) -> Path:
    """The folder of an experiment's runs."""
    return Path(os.path.expanduser(config.output_dir)) / config.experiment


def _new(config: TrainConfig, seed: int, folder: RunFolder) -> RunPlan:
    precision, reason = devices.precision(config.precision)
    return RunPlan(config, config.resolved_recipe, seed, folder, precision, reason)


def _resolve(config: TrainConfig, seed: int, folder: RunFolder) -> RunPlan:
    """A plan that goes on with what is in the folder."""
    plan = _new(config, seed, folder)
    old = folder.read_config() if files.exists(folder.path / "config.json") else None
    results = folder.read_results()
    if old is None:
        if results is not None:
            raise UserError(
                f"{folder.path} has results.json but no config.json, which must be a file of this "
                "program; use another `name`, or `restart` to move the run aside and start over"
            )
        return plan
    if "precision" not in old:
        raise UserError(
            f"{folder.path / 'config.json'} has no precision: it must be a file of this program; use "
            "another `name`, or `restart` to move the run aside and start over"
        )
    different = []
    if config.precision == "auto":
        # A run that moves to another machine goes on as it was.
        plan = dataclasses.replace(plan, precision=old["precision"], reason="as this run began")
    elif plan.precision != old["precision"]:
        different.append(f"`precision` {old['precision']} there, {plan.precision} now")
    backend = old.get("backend", "tensorflow")
    if results is None and backend != keras.backend.backend():
        raise UserError(
            f"{folder.path} holds a run that was begun on Keras's backend {backend}, to whose bits "
            f"{keras.backend.backend()} cannot go on: set KERAS_BACKEND={backend} to resume it, or give "
            "another `name`"
        )
    different += resume.differences(old["settings"], config.settings())
    refuse_other_settings(folder.path, different)
    return dataclasses.replace(plan, began_with=old, results=results)


def refuse_other_settings(path: Path, different: list[str]) -> None:
    """Raise UserError where a run was begun with other settings than those asked for."""
    if different:
        raise UserError(
            f"{path} holds a run with other settings: {'; '.join(different)}. Give the same "
            "settings to resume it, another `name`, or `restart` to move it aside and start over"
        )
