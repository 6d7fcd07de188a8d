"""The runs of a report, and its rows: runs that agree in everything but the seed."""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keras_resnet.errors import UserError
from keras_resnet.nets.family import PAPER_ERRORS
from keras_resnet.recipes import RECIPES, Recipe, describe_changes
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.files import MOVED_ASIDE
from keras_resnet.runs.folder import MetricsRow, RunConfig, RunResults
from keras_resnet.runs.resume import decisive
from keras_resnet.runs.run import Run, read_run

# Test errors of github.com/nabla0001/resnet in percent, mean and standard deviation of 5 runs.
PYTORCH_ERRORS = {
    ("resnet", 20): "8.51 ± 0.22", ("resnet", 56): "7.40 ± 0.27", ("resnet", 110): "7.14 ± 0.20",
    ("plain", 20): "9.78 ± 0.13", ("plain", 56): "12.95 ± 0.22",
}  # fmt: skip
_IN_COLUMNS = {"model", "depth", "shortcut", "dataset", "precision", "recipe"}  # of the table


@dataclasses.dataclass(frozen=True)
class Record:
    """A run with the contents of its files; `results` is None while the run is unfinished."""

    run: Run
    saved: RunConfig
    metrics: list[MetricsRow]
    results: RunResults | None

    @property
    def step(self) -> int:
        """Updates made up to the last evaluation."""
        return self.metrics[-1]["step"] if self.metrics else 0

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the run's numbers, but for the seed; also settings of a later version."""
        settings = {**self.saved["settings"], **self.run.settings()}
        return decisive({**self.saved, "settings": settings})

    def number(self, name: str) -> float | None:
        """A number of results.json; None where the run is unfinished or did not measure it."""
        return dict(self.results or {}).get(name)  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs that agree in everything but the seed, ordered by seed."""

    records: tuple[Record, ...]

    @property
    def config(self) -> TrainConfig:
        return self.records[0].run.config

    @property
    def recipe(self) -> Recipe:
        return self.records[0].run.recipe

    @property
    def settings(self) -> dict[str, Any]:
        return self.records[0].settings

    @property
    def name(self) -> str:
        """E.g. `"ResNet-56"`, `"ResNet-20 (projection)"`."""
        kind = "ResNet" if self.config.model == "resnet" else "Plain"
        shortcut = "" if self.config.shortcut == "zeropad" else f" ({self.config.shortcut})"
        return f"{kind}-{self.config.depth}{shortcut}"

    @property
    def precision(self) -> str:
        return self.settings["precision"] or self.config.precision

    @property
    def recipe_text(self) -> str:
        """The recipe and the changed settings that have no column: `"paper, val size 0"`."""
        others = [
            f"{name.replace('_', ' ')} {value}"
            for name, value in sorted(self.settings.items())
            if name not in _IN_COLUMNS | self.recipe.settings().keys()
            and value != getattr(TrainConfig, name, None)
        ]
        return ", ".join([describe_changes(self.recipe, self.config.depth), *others])

    @property
    def finished(self) -> list[Record]:
        """The runs with results. Only these count in the numbers."""
        return [record for record in self.records if record.results is not None]

    @property
    def unfinished(self) -> list[Record]:
        return [record for record in self.records if record.results is None]

    def values(self, name: str) -> list[float]:
        """A number of results.json, of each finished run that measured it."""
        return [v for record in self.finished if (v := record.number(name)) is not None]

    def mean(self, name: str) -> float | None:
        """Mean of `values`; None where there are none."""
        values = self.values(name)
        return statistics.fmean(values) if values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1) of the test error; None for fewer than two runs."""
        errors = self.values("test_error")
        return statistics.stdev(errors) if len(errors) > 1 else None

    @property
    def references(self) -> tuple[str | None, str | None]:
        """Test errors of He et al. and of the PyTorch reproduction; None beside changed settings."""
        config = self.config
        comparable = config.dataset == "cifar10" and config.shortcut == "zeropad"
        if not comparable or self.recipe_text != config.recipe:
            return None, None
        paper = PAPER_ERRORS.get(config.depth) if config.model == "resnet" else None
        return paper, PYTORCH_ERRORS.get((config.model, config.depth))


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """Folders that hold config.json and metrics.csv, at or below the paths, each once.

    Folders moved aside (`seed-0.old-1`) and hidden ones are passed over.

    Raises:
        UserError: where a path is no folder, or holds no run.
    """
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            reason = "is no folder" if path.exists() else "does not exist"
            raise UserError(f"a folder with runs was expected. Received: {path}, which {reason}")
        for folder, below, names in os.walk(path):
            below[:] = sorted(n for n in below if not MOVED_ASIDE.search(n) and n[0] != ".")
            if {"config.json", "metrics.csv"} <= set(names):
                folders.setdefault(Path(folder).resolve(), Path(folder))
                below.clear()
    if not folders:
        raise UserError(
            f"no runs found in {', '.join(map(str, paths))}: a run folder holds config.json and "
            "metrics.csv (python train.py makes them)"
        )
    return list(folders.values())


def read_record(path: Path) -> Record:
    """Read a run folder. Raises UserError, naming the file, where one makes no sense."""
    run = read_run(path)
    saved = run.folder.read_config()
    assert saved is not None  # `read_run` has read it
    return Record(run, saved, run.folder.read_metrics(), run.folder.read_results())


def group(records: Iterable[Record]) -> tuple[list[Row], list[Record]]:
    """Put runs that agree in everything but the seed into one row.

    The same settings and seed twice are one measurement: the finished run (else the one with more
    updates, else the first) is kept, whatever its error.

    Returns:
        Rows, in the order of the tables, and the runs that repeat another.
    """
    groups: dict[str, dict[int, Record]] = {}
    repeated: list[Record] = []
    for record in sorted(records, key=lambda r: (r.results is None, -r.step)):
        seeds = groups.setdefault(repr(sorted(record.settings.items())), {})
        if seeds.setdefault(record.run.config.seed, record) is not record:
            repeated.append(record)
    rows = [Row(tuple(seeds[seed] for seed in sorted(seeds))) for seeds in groups.values()]
    return sorted(rows, key=_order), repeated


def best_run(rows: Iterable[Row]) -> Record | None:
    """The finished run with the lowest validation error, of CIFAR-10 where one is; None for none.

    The test error has no say.
    """
    records = [r for row in rows for r in row.finished if r.number("val_error") is not None]
    return min(
        records, key=lambda r: (r.run.config.dataset != "cifar10", r.number("val_error")), default=None
    )  # fmt: skip


def _order(row: Row) -> tuple:
    config = row.config
    return (
        config.dataset != "cifar10", config.dataset, list(RECIPES).index(config.recipe),
        -row.recipe.steps, row.recipe_text, config.model != "resnet", config.depth,
        config.shortcut, row.precision,
    )  # fmt: skip
