"""One run: what is trained, how, and where its files are. Without Keras, as `sweep` needs none."""

import contextlib
import dataclasses
import os
import statistics
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_resnet.data.constants import DATASETS, VAL_SIZE
from keras_resnet.errors import UserError, did_you_mean
from keras_resnet.recipes import PAPER, RECIPES, Recipe
from keras_resnet.runs import files
from keras_resnet.runs.config import OF_WEIGHTS, TrainConfig, check_values, convert
from keras_resnet.runs.folder import RunFolder
from keras_resnet.runs.resume import Settings, decisive_settings, upgrade


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of an experiment."""

    config: TrainConfig  # its settings: `seed` is this run's, `runs` is 1
    recipe: Recipe  # resolved: every number that the run trains with
    folder: RunFolder
    later: int = 0  # how many runs of the same command come after it

    def __str__(self) -> str:
        return f"{self.config.experiment}/seed-{self.config.seed}"

    def settings(self) -> dict[str, Any]:
        """All settings as config.json and checkpoints hold them, the recipe's numbers among them."""
        settings = {**vars(self.config), "recipe": self.recipe.name, **self.recipe.settings()}
        if self.config.dataset in DATASETS and self.config.val_size is None:
            settings["val_size"] = VAL_SIZE
        return settings


def runs_of(config: TrainConfig) -> list[Run]:
    """The runs of an experiment, one for each seed. Nothing is read or written."""
    experiment = Path(os.path.expanduser(config.output_dir)) / config.experiment
    runs, recipe = [], config.resolve_recipe()
    for k in range(config.runs):
        one = dataclasses.replace(config, seed=config.seed + k, runs=1)
        folder = RunFolder(experiment / f"seed-{one.seed}")
        runs.append(Run(one, recipe, folder, later=config.runs - 1 - k))
    return runs


def refuse_output_among_images(config: TrainConfig) -> None:
    """Raise UserError where runs would lie in the folder of the user's own images, as if they were images."""
    if config.dataset in DATASETS:
        return
    images = Path(config.data_dir or "", config.dataset).resolve()
    output = Path(os.path.expanduser(config.output_dir)).resolve()
    if output.is_relative_to(images):
        raise UserError(
            f"`output_dir` must be outside of the folder of the images, {images}. Received: {output}"
        )


def read_run(path: Path) -> Run:
    """The run that a folder holds, of any version. Raises UserError where config.json makes no sense."""
    saved = RunFolder(path).read_config()
    if saved is None:
        raise UserError(f"{path} must be a run folder, but holds no config.json; name another")
    try:
        config = _config_of(upgrade(saved["settings"]))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{path}/config.json has settings that make no sense: {reason}") from None
    return Run(config, config.resolve_recipe(), RunFolder(path))


def _config_of(settings: Settings) -> TrainConfig:
    """The config that `Run.settings` came from, without the numbers that its recipe gives anyway."""
    known = TrainConfig.__dataclass_fields__.keys() & settings.keys()
    own = {key: settings[key] for key in known} | {"runs": 1}
    numbers = {key: settings[key] for key in PAPER.settings()}
    recipe = RECIPES.get(settings["recipe"])
    if recipe is None or TrainConfig(**own).resolve_recipe().settings() != numbers:
        own["recipe"] = recipe = Recipe(settings["recipe"], warmup_min_depth=0, **numbers)
    usual = recipe.usual_settings(settings["depth"], settings["steps"])
    changed = {key: own[key] if own[key] != usual[key] else None for key in usual.keys() & known}
    return TrainConfig(**own | changed)


def read_settings(path: Path, dataset: str | None = None) -> dict[str, Any]:
    """Settings of `TrainConfig`, each checked by itself, from a TOML file, or a run's folder or config.json.

    In TOML, a table `[recipe]` holds fields of `Recipe`; those that are left out come from the recipe of
    that `name`, else from the paper's. `dataset` is what the user gives in place of a run's. Raises
    UserError, naming file and key, for what makes no sense.
    """
    path = path / "config.json" if path.is_dir() else path
    if path.name == "config.json":
        settings = vars(read_run(path.parent).config)
        left_out = {*OF_WEIGHTS} if settings["weights"] else set()
        if dataset and not {dataset, settings["dataset"]} <= {*DATASETS}:
            left_out.add("data_dir")  # that of the run's images
        return {key: value for key, value in settings.items() if key not in left_out}
    data = files.read_bytes(path)
    if data is None:
        raise UserError(
            "`config` must be a TOML file, or a run's folder or config.json. "
            f"Received: {path}, which does not exist"
        )
    try:
        text = data.decode("utf-8-sig")  # editors on Windows write a byte order mark
        written = tomllib.loads(text)
        given = {key.replace("-", "_"): value for key, value in written.items()}
        if len(given) < len(written):
            raise ValueError("a setting is given twice, with a hyphen and with an underscore")
        _check_keys(given, TrainConfig)
        if isinstance(table := given.get("recipe"), dict):
            _check_keys(table, Recipe)
            base = RECIPES.get(str(table.get("name")), PAPER)
            with contextlib.suppress(TypeError, ValueError):  # wrong steps are named below
                # A warm-up in the table is meant for the steps above the table.
                steps = given.get("steps") if "warmup_steps" in table else None
                base = base.resolve(PAPER.warmup_min_depth, steps=table.get("steps", steps))
            values = {**dataclasses.asdict(base), "name": "custom", **table}
            if "warmup_steps" in table:  # and for this net, whatever its depth is
                values["warmup_min_depth"] = table.get("warmup_min_depth", 0)
            given["recipe"] = convert("recipe", Recipe, values)
        return check_values(given)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} must be TOML in UTF-8: {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {str(error).replace('`', '')}") from None


def _check_keys(given: Mapping[str, Any], settings: Any) -> None:
    known = settings.__dataclass_fields__
    for key in given.keys() - known.keys():
        raise ValueError(f"{key} is not a setting{did_you_mean(key, known)}")


def write_summary(run: Run) -> str | None:
    """Write summary.json: mean and spread over the finished seeds that trained like this one.

    Returns both as a line; None for fewer than two seeds.
    """
    experiment, own = run.folder.path.parent, run.folder.read_config()
    mine = run.folder.read_results()
    errors: dict[int, float] = {}  # by seed
    for path in experiment.glob("seed-*"):  # and not copies of them
        with contextlib.suppress(UserError):  # it is reported where that seed is asked for
            other = read_run(path)
            began, results = other.folder.read_config(), other.folder.read_results()
            if not (own and began and results and path.name == f"seed-{other.config.seed}"):
                continue
            if decisive_settings(began, results) == decisive_settings(own, mine):
                errors[other.config.seed] = results["test_error"]
    if not errors:
        return None
    seeds, ordered = sorted(errors), [errors[seed] for seed in sorted(errors)]
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
