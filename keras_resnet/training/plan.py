"""What a run will be: settings, machine and what lies in its folder, resolved once before it trains."""

from __future__ import annotations

import dataclasses

import keras

from keras_resnet.errors import UserError
from keras_resnet.recipes import Recipe
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunConfig, RunFolder, RunResults
from keras_resnet.training import devices
from keras_resnet.training.begun import begun_with, experiment_folder


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """One seed of an experiment.

    Attributes:
        config: the settings that were asked for.
        recipe: what it trains with.
        seed: of this run.
        folder: its run folder.
        precision: Keras dtype policy.
        reason: why that one, to be printed.
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


def _new(config: TrainConfig, seed: int, folder: RunFolder) -> RunPlan:
    precision, reason = devices.precision(config.precision)
    return RunPlan(config, config.resolved_recipe, seed, folder, precision, reason)


def _resolve(config: TrainConfig, seed: int, folder: RunFolder) -> RunPlan:
    """A plan that goes on with what is in the folder."""
    plan = _new(config, seed, folder)
    old, results = begun_with(config, folder)
    backend = old.get("backend", "tensorflow") if old else None
    if backend and results is None and backend != keras.backend.backend():
        raise UserError(
            f"{folder.path} holds a run that was begun on Keras's backend {backend}, to whose bits "
            f"{keras.backend.backend()} cannot go on: set KERAS_BACKEND={backend} to resume it, or give "
            "another `name`"
        )
    if old is not None and config.precision == "auto":
        # A run that moves to another machine goes on as it was.
        plan = dataclasses.replace(plan, precision=old["precision"], reason="as this run began")
    return dataclasses.replace(plan, began_with=old, results=results)
