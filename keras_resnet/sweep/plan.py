"""Which runs a sweep has, what is left of them, and how long that takes: functions of settings and files."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from keras_resnet.errors import UserError
from keras_resnet.report import rows
from keras_resnet.runs import checkpoints
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunFolder
from keras_resnet.training.begun import begun_with, experiment_folder

SEVERAL = ("model", "depth", "shortcut", "recipe", "dataset", "precision")  # take several values
# The nets whose errors the PyTorch reproduction reports, over five runs each.
PAPER_TABLE = (
    {"model": "resnet", "depth": 20},
    {"model": "resnet", "depth": 56},
    {"model": "resnet", "depth": 110},
    {"model": "plain", "depth": 20},
    {"model": "plain", "depth": 56},
)
PAPER_SEEDS = 5


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep: the settings of one seed."""

    config: TrainConfig

    @property
    def folder(self) -> RunFolder:
        """Its run folder."""
        return RunFolder(experiment_folder(self.config) / f"seed-{self.config.seed}")

    @property
    def log(self) -> Path:
        """What its process writes, beside the run folder."""
        return self.folder.path.with_name(f"seed-{self.config.seed}.log")

    @property
    def name(self) -> str:
        """E.g. `"resnet56 seed 3"`."""
        return f"{self.config.experiment} seed {self.config.seed}"

    @property
    def steps(self) -> int:
        """Updates of the whole run."""
        return self.config.resolved_recipe.steps


@dataclasses.dataclass(frozen=True)
class Standing:
    """How far a run is, as its folder says.

    Attributes:
        state: refused is a folder that training would refuse, for the reason `why`.
        step: updates made, as the last evaluation or checkpoint tells.
        val_error: in percent, at the last evaluation.
        rate: images per second, over the updates before it.
        test_error: in percent, of a finished run.
    """

    state: Literal["new", "begun", "finished", "refused"]
    step: int = 0
    val_error: float | None = None
    rate: float | None = None
    test_error: float | None = None
    why: str = ""


def combine(
    settings: Mapping[str, Any], nets: Iterable[Mapping[str, Any]]
) -> tuple[list[Run], list[str]]:
    """The runs of all nets and seeds, and what was left out because it cannot be.

    Args:
        settings: of `TrainConfig`, what all runs share; `runs` seeds each, from `seed` on.
        nets: one mapping each of what they do not share.

    Raises:
        UserError: for a value that no run can have.
    """
    kinds, left_out = [], []
    for net in nets:
        config = {**settings, **net}
        if config.get("model") == "plain" and config.get("shortcut", "zeropad") != "zeropad":
            left_out.append(
                f"plain{config['depth']} with {config['shortcut']}: it has no shortcuts"
            )
            continue
        kinds.append(config)
    try:
        configs = _named([TrainConfig(**config) for config in kinds], settings.get("name"))
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None
    if not configs:
        raise UserError(f"nothing is left to train: {'; '.join(left_out)}")
    return [
        Run(dataclasses.replace(config, seed=seed, runs=1))
        for config in configs
        for seed in range(config.seed, config.seed + config.runs)
    ], left_out


def product(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All combinations of values, each once: `{"depth": [20, 56]}` gives two."""
    lists = [list(dict.fromkeys(several)) for several in values.values()]
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*lists)]


def _named(configs: list[TrainConfig], name: str | None) -> list[TrainConfig]:
    """The same, with folders of their own where the default names or one given name would meet."""
    several = len({config.precision for config in configs}) > 1
    named = []
    for config in configs:
        own = dataclasses.replace(config, name=None).experiment
        own += f"-{config.precision}" if several else ""
        own = own if name is None else name if len(configs) == 1 else f"{name}-{own}"
        named.append(config if config.experiment == own else dataclasses.replace(config, name=own))
    return named


def standing(run: Run) -> Standing:
    """How far a run is. Nothing is written."""
    try:
        config, results = begun_with(run.config, run.folder)
        metrics = run.folder.read_metrics()
    except UserError as error:
        return Standing("refused", why=str(error))
    step, val_error, rate = saved(run), None, None
    if metrics:
        last = metrics[-1]
        step = max(step, last["step"])
        val_error, rate = last["val_error"], last["images_per_second"]
    if results is not None:
        rate = results.get("images_per_second") or rate
        return Standing("finished", run.steps, val_error, rate, results["test_error"])
    return Standing("new" if config is None else "begun", step, val_error, rate)


def saved(run: Run) -> int:
    """The update of a run's newest checkpoint, by its name; 0 where there is none."""
    found = checkpoints.list_checkpoints(run.folder.path)
    return int(found[0].stem.removeprefix("step-")) if found else 0


def hours_left(run: Run, at: Standing, rate: float | None) -> float | None:
    """Hours of training that a run has before it; None where no rate is known.

    Args:
        run: the run.
        at: how far it is.
        rate: images per second of runs like it, where it has none of its own.
    """
    if at.state == "finished":
        return 0.0
    rate = at.rate or rate
    images = (run.steps - at.step) * run.config.resolved_recipe.batch_size
    return images / rate / 3600 if rate else None


def net_of(config: TrainConfig) -> tuple[Any, ...]:
    """What decides how fast a run is, on one machine."""
    return config.model, config.depth, config.shortcut, config.resolved_recipe.batch_size


def known_rates(folder: Path) -> dict[tuple[Any, ...], float]:
    """Net -> images per second: the median of the runs in a folder, finished or not."""
    found: dict[tuple[Any, ...], list[float]] = {}
    try:
        paths = rows.find_runs([folder])
    except UserError:
        return {}
    for path in paths:
        try:
            record = rows.read_record(path)
        except UserError:
            continue  # it is told where it is asked for
        last = [row["images_per_second"] for row in record.metrics if row["images_per_second"]][-1:]
        rate = record.number("images_per_second") or (last[0] if last else None)
        if rate:
            found.setdefault(net_of(record.run.config), []).append(rate)
    return {net: statistics.median(rates) for net, rates in found.items()}


def longest_first(runs: Iterable[Run]) -> list[Run]:
    """The runs as they are best begun: what takes long would else be alone at the end."""

    def work(run: Run) -> int:
        recipe = run.config.resolved_recipe
        return run.config.depth * recipe.steps * recipe.batch_size

    return sorted(runs, key=work, reverse=True)


def makespan(hours: Iterable[float], slots: int) -> float:
    """Hours until all is done, where `slots` runs go on at once and the longest begin first."""
    ends = [0.0] * slots
    for duration in sorted(hours, reverse=True):
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def slots(nodes: Iterable[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """How many runs go on at once.

    Args:
        nodes: the resources of each, as Ray counts them: `{"CPU": 8.0, "GPU": 1.0}`.
        cpus: of one run.
        gpus: of one run.
    """

    def fit(node: Mapping[str, float]) -> int:
        wanted = [(node.get(name, 0.0), each) for name, each in (("CPU", cpus), ("GPU", gpus))]
        # A tenth of a GPU goes ten times into one, whatever binary fractions say.
        return int(min((there / each + 1e-9 for there, each in wanted if each), default=0))

    return sum(map(fit, nodes))
