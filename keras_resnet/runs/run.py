"""One run: what is trained, how, and where its files lie. Made once, from settings, and handed down.

Without Keras, so that `sweep` and `report` need not start it.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
from pathlib import Path
from typing import Any

from keras_resnet.data.constants import DATASETS, VAL_SIZE
from keras_resnet.errors import UserError
from keras_resnet.recipes import RECIPES, Recipe
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunFolder
from keras_resnet.runs.resume import decisive, upgraded


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of an experiment.

    Attributes:
        config: its settings; `config.seed` is this run's, `config.runs` is 1.
        recipe: the recipe that the settings come to, with every number that it trains with.
        folder: where its files lie.
    """

    config: TrainConfig
    recipe: Recipe
    folder: RunFolder

    def __str__(self) -> str:
        return f"{self.config.experiment}/seed-{self.config.seed}"

    def evaluates(self, step: int) -> bool:
        """Whether the run is evaluated after this update."""
        return step == self.recipe.steps or step % self.config.eval_every == 0

    def settings(self) -> dict[str, Any]:
        """All settings as config.json and checkpoints hold them, the recipe's numbers among them."""
        settings = {**dataclasses.asdict(self.config), **self.recipe.settings()}
        if self.config.dataset in DATASETS and self.config.val_size is None:
            settings["val_size"] = VAL_SIZE
        return settings


def runs_of(config: TrainConfig) -> list[Run]:
    """The runs of an experiment, one for each seed. Nothing is read or written."""
    experiment = Path(os.path.expanduser(config.output_dir)) / config.experiment
    return [
        Run(
            dataclasses.replace(config, seed=seed, runs=1),
            config.resolve_recipe(),
            RunFolder(experiment / f"seed-{seed}"),
        )
        for seed in range(config.seed, config.seed + config.runs)
    ]


def read_run(path: Path) -> Run:
    """The run that a folder holds, of any version, finished or not.

    Raises:
        UserError: where config.json is missing or makes no sense.
    """
    folder = RunFolder(path)
    config = folder.read_config()
    if config is None:
        raise UserError(f"{path} must be a run folder, but holds no config.json; name another")
    settings = upgraded(config["settings"])
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    try:
        known = TrainConfig(**{k: v for k, v in settings.items() if k in names})
        numbers = {key: settings[key] for key in known.resolve_recipe().settings()}
        recipe = dataclasses.replace(RECIPES[known.recipe], **numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path / 'config.json'} has settings that make no sense: {error}"
        ) from None
    return Run(dataclasses.replace(known, runs=1), recipe, folder)


def write_summary(run: Run) -> str | None:
    """Write summary.json: mean and spread over the finished seeds that trained like this one.

    Returns:
        The same as a line; None for fewer than two.
    """
    experiment, config = run.folder.path.parent, run.folder.read_config()
    errors: dict[int, float] = {}
    for path in experiment.glob("seed-*/results.json"):
        try:
            other = read_run(path.parent)
            began, results = other.folder.read_config(), other.folder.read_results()
        except UserError:
            continue  # it is reported where that seed is asked for
        if config and began and results and decisive(began) == decisive(config):
            errors[other.config.seed] = results["test_error"]
    if not errors:
        return None
    seeds = sorted(errors)
    ordered = [errors[seed] for seed in seeds]
    mean, std = statistics.mean(ordered), statistics.stdev(ordered) if len(ordered) > 1 else None
    summary = {
        "test_error_mean": round(mean, 4),
        "test_error_std": None if std is None else round(std, 4),
        "runs": len(ordered),
        "seeds": seeds,
        "test_errors": ordered,
    }
    files.write_json(experiment / "summary.json", summary)
    if std is None:
        return None
    return f"test error {mean:.2f} +- {std:.2f} % (mean and sample std of seeds {seeds})"
