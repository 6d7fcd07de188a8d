"""What the report is made of: run folders, and the rows of runs that may be averaged."""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from keras_resnet.data.constants import DATASETS
from keras_resnet.errors import UserError
from keras_resnet.nets.family import PAPER_ERRORS
from keras_resnet.recipes import RECIPES
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.files import MOVED_ASIDE
from keras_resnet.runs.folder import MetricsRow, RunConfig, RunFolder, RunResults
from keras_resnet.runs.resume import decisive

# What stands in a column or a label of its own; the rest is told as "recipe".
_SHOWN = {"model", "depth", "shortcut", "dataset", "steps", "precision", "recipe"}
# github.com/nabla0001/resnet, mean +- std of 5 runs.
PYTORCH = {
    ("resnet", 20): "8.51 ± 0.22",
    ("resnet", 56): "7.40 ± 0.27",
    ("resnet", 110): "7.14 ± 0.20",
    ("plain", 20): "9.78 ± 0.13",
    ("plain", 56): "12.95 ± 0.22",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder. `results` is None while the run is not finished."""

    folder: Path
    config: TrainConfig
    saved: RunConfig
    metrics: list[MetricsRow]
    results: RunResults | None

    @property
    def step(self) -> int:
        """Updates made, as far as metrics.csv tells."""
        return int(max((row["step"] for row in self.metrics), default=0))

    @property
    def commit(self) -> str:
        """Git commit the run was made with, or "unknown"."""
        return str(self.saved.get("git_commit") or "unknown")

    @property
    def device(self) -> str:
        """Name of the device, or "unknown"."""
        return self.saved["device"]["name"] if "device" in self.saved else "unknown"

    @property
    def key(self) -> dict[str, Any]:
        """Every setting that matters but the seed: runs with equal keys may be averaged."""
        whole: RunConfig = {
            **self.saved,  # of this or another version, or written by hand with less
            "settings": {
                **self.config.settings(),
                **{k: v for k, v in self.saved["settings"].items() if v is not None},
            },
        }
        key = decisive(whole)
        key["precision"] = key["precision"] or self.config.precision
        key["warmup_steps"] = self.config.warmup  # what None meant
        if self.config.model == "plain":
            key["shortcut"] = None
        return key

    def number(self, name: str) -> float | None:
        """A finite number of results.json, or None."""
        value = dict(self.results or {}).get(name)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed: a row of the table, a colour of the figure."""

    runs: tuple[Run, ...]

    @property
    def key(self) -> dict[str, Any]:
        """See `Run.key`."""
        return self.runs[0].key

    @property
    def config(self) -> TrainConfig:
        """Settings of the first run; those of the others differ in what does not matter."""
        return self.runs[0].config

    @property
    def name(self) -> str:
        """E.g. `"ResNet-56"`."""
        return f"{'ResNet' if self.config.model == 'resnet' else 'Plain'}-{self.config.depth}"

    @property
    def finished(self) -> list[Run]:
        """Runs that have results; only these count in numbers."""
        return [run for run in self.runs if run.results is not None]

    @property
    def unfinished(self) -> list[Run]:
        """Runs that are still going on, or were stopped."""
        return [run for run in self.runs if run.results is None]

    def mean(self, name: str) -> float | None:
        """Mean of a number of results.json over the finished runs that have it."""
        values = [v for run in self.finished if (v := run.number(name)) is not None]
        return statistics.fmean(values) if values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1) of the test error; None for less than two runs."""
        errors = [run.results["test_error"] for run in self.finished if run.results]
        return statistics.stdev(errors) if len(errors) > 1 else None

    @property
    def steps(self) -> int:
        """Updates of the whole run."""
        return self.config.resolved_recipe.steps

    @property
    def full_schedule(self) -> bool:
        """Whether the run has as many updates as its recipe means it to have."""
        return self.steps == RECIPES[self.config.recipe].steps

    @property
    def references(self) -> tuple[str | None, str | None]:
        """He et al.'s and the PyTorch reproduction's test error, where the row is comparable."""
        key = self.key
        if (
            key["dataset"] != "cifar10"
            or not self.full_schedule
            or key["shortcut"] not in ("zeropad", None)
            or self.recipe not in ("", f"recipe {self.config.recipe}")  # it changes a number of it
        ):
            return None, None
        paper = PAPER_ERRORS.get(key["depth"]) if key["model"] == "resnet" else None
        return paper, PYTORCH.get((key["model"], key["depth"]))

    @property
    def recipe(self) -> str:
        """The recipe, and what differs from it and has no column of its own; empty for the paper's."""
        config = self.config
        default = TrainConfig(depth=config.depth, recipe=config.recipe, steps=self.steps).settings()
        changed = [
            f"{name.replace('_', ' ')} {value}"
            for name, value in sorted(self.key.items())
            if name not in _SHOWN and (name not in default or default[name] != value)
        ]
        return ", ".join([f"recipe {config.recipe}"] * (config.recipe != "paper") + changed)

    @property
    def section(self) -> str:
        """What the rows of one panel of the figure have in common: schedule, data, recipe."""
        key = self.key
        parts = [f"{key['steps']:,} updates", key["dataset"], key["precision"]]
        if key["shortcut"] not in ("zeropad", None):
            parts.append(f"shortcut {key['shortcut']}")
        return ", ".join(parts + [self.recipe] * bool(self.recipe))


def find(paths: Iterable[str | Path]) -> list[Path]:
    """Run folders (those that hold config.json and metrics.csv) at or below the paths, each once.

    Folders moved aside (`seed-0.old-1`) and hidden ones are passed over.

    Raises:
        UserError: where a path is no folder, or no run is found.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            reason = "is none" if path.exists() else "does not exist"
            raise UserError(f"a folder with runs was expected. Received: {path}, which {reason}")
        for folder, below, files in os.walk(path):
            below[:] = sorted(n for n in below if not MOVED_ASIDE.search(n) and n[0] != ".")
            if {"config.json", "metrics.csv"} <= set(files):
                found.setdefault(Path(folder).resolve(), Path(folder))
                below.clear()
    if not found:
        raise UserError(
            f"no runs found in {', '.join(map(str, paths))}: a run folder holds config.json and "
            "metrics.csv (python train.py makes them)"
        )
    return list(found.values())


def read(path: Path) -> Run:
    """Read a run folder. Raises UserError, naming the file, where one makes no sense."""
    folder = RunFolder(path)
    saved = folder.read_config()
    if saved is None:
        raise UserError(f"{path} has no config.json any more; give the command again")
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    try:
        given = {k: v for k, v in saved["settings"].items() if k in known}
        config = TrainConfig(**given)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path / 'config.json'} has a setting that cannot be: {error}") from None
    return Run(path, config, saved, folder.read_metrics(), folder.read_results())


def group(found: Sequence[Run]) -> tuple[list[Row], list[Run]]:
    """Put runs that differ in the seed alone in one row.

    The same settings and the same seed twice are one measurement: the finished one (else the one
    that got further, else the first) is kept, without a look at its errors.

    Returns:
        Rows, full schedules first, and the runs that were left out.
    """
    chosen: dict[tuple[str, int], Run] = {}
    left_out: list[Run] = []
    for run in found:
        name = (repr(sorted(run.key.items())), run.config.seed)
        other = chosen.get(name)
        if other and (other.results is not None, other.step) >= (run.results is not None, run.step):
            left_out.append(run)
            continue
        if other:
            left_out.append(other)
        chosen[name] = run
    together: dict[str, list[Run]] = {}
    for (key, _), run in sorted(chosen.items(), key=lambda item: item[0][1]):
        together.setdefault(key, []).append(run)
    return sorted((Row(tuple(members)) for members in together.values()), key=_order), left_out


def sections(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by what they have in common (`Row.section`), in the order of the rows."""
    together: dict[str, list[Row]] = {}
    for row in rows:
        together.setdefault(row.section, []).append(row)
    return together


def best_run(rows: Iterable[Row]) -> Run | None:
    """The finished run with the lowest validation error, of CIFAR-10 where there is one.

    The test set chooses nothing. None where no finished run has a validation error.
    """
    candidates = [
        (DATASETS.index(run.config.dataset), error, run)
        for row in rows
        for run in row.finished
        if (error := run.number("val_error")) is not None
    ]
    return min(candidates, key=lambda candidate: candidate[:2])[2] if candidates else None


def _order(row: Row) -> tuple:
    config = row.config
    return (
        DATASETS.index(config.dataset), -row.steps, config.model != "resnet", config.depth,
        row.key["shortcut"] or "", row.recipe, row.key["precision"],
    )  # fmt: skip
