"""The runs of a report, and its rows: runs that agree in everything but the seed."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_resnet import console
from keras_resnet.data.walk import walk
from keras_resnet.errors import UserError
from keras_resnet.nets.family import MODELS, PAPER_ERRORS
from keras_resnet.recipes import RECIPES, describe_changes
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.files import MOVED_ASIDE
from keras_resnet.runs.folder import MetricsRow, RunConfig
from keras_resnet.runs.resume import decisive_settings, refuse_results_of_others
from keras_resnet.runs.run import Run, read_run, runs_of

# Test errors of github.com/nabla0001/resnet in percent, mean and standard deviation of 5 runs.
PYTORCH_ERRORS = {
    ("resnet", 20): "8.51 ± 0.22", ("resnet", 56): "7.40 ± 0.27", ("resnet", 110): "7.14 ± 0.20",
    ("plain", 20): "9.78 ± 0.13", ("plain", 56): "12.95 ± 0.22",
}  # fmt: skip
_IN_COLUMNS = {"model", "depth", "shortcut", "dataset", "precision", "recipe"}  # of the table


class Record(NamedTuple):
    """A run with the contents of its files."""

    run: Run
    saved: RunConfig
    settings: dict[str, Any]  # what decides its numbers, but for the seed
    metrics: list[MetricsRow]
    step: int  # updates made up to the last evaluation
    results: dict[str, Any]  # empty while it is unfinished


class Row:
    """Runs that agree in everything but the seed, ordered by seed. Its means are of the finished ones."""

    def __init__(self, records: Sequence[Record]):
        run, self.settings = records[0].run, records[0].settings
        self.records, self.config, self.recipe = records, run.config, run.recipe
        self.precision: str = self.settings["precision"] or run.config.precision
        self.finished = [record for record in records if record.results]
        self.unfinished = [record for record in records if not record.results]
        kind = "ResNet" if self.config.model == "resnet" else "Plain"
        shortcut = "" if self.config.shortcut == "zeropad" else f" ({self.config.shortcut})"
        self.name = f"{kind}-{self.config.depth}{shortcut}"
        self.kind = self.config.model
        if self.config.model not in MODELS:
            self.name, self.kind = self.config.model, "own"

    @property
    def recipe_text(self) -> str:
        """The recipe and the changed settings that have no column: `"paper, val size 0"`."""
        usual = runs_of(TrainConfig(dataset=self.config.dataset))[0].settings()
        others = [
            f"{name.replace('_', ' ')} {value}"
            for name, value in sorted(self.settings.items())
            if name not in _IN_COLUMNS | self.recipe.settings().keys() and value != usual.get(name)
        ]
        return ", ".join([describe_changes(self.recipe, self.config.depth), *others])

    def mean(self, name: str) -> float | None:
        """Mean of a number of results.json over the runs that measured it; None where none did."""
        values = [v for record in self.records if (v := record.results.get(name)) is not None]
        return statistics.fmean(values) if values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1) of the test error; None for fewer than two runs."""
        errors = [record.results["test_error"] for record in self.finished]
        return statistics.stdev(errors) if len(errors) > 1 else None

    @property
    def references(self) -> tuple[str | None, str | None]:
        """Test errors of He et al. and of the PyTorch reproduction; None if other settings differ."""
        config = self.config
        comparable = config.dataset == "cifar10" and config.shortcut == "zeropad"
        if not comparable or self.recipe_text != config.recipe:
            return None, None
        paper = PAPER_ERRORS.get(config.depth) if config.model == "resnet" else None
        return paper, PYTORCH_ERRORS.get((config.model, config.depth))


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """Folders that hold config.json and metrics.csv, at or below the paths, each once.

    Folders moved aside (`seed-0.old-1`) and hidden ones are skipped. Raises UserError where a path is not
    a folder, or none holds a run.
    """
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            reason = "is not a folder" if path.exists() else "does not exist"
            raise UserError(f"a folder with runs was expected. Received: {path}, which {reason}")
        for folder, names in walk(path, _warn):
            aside = any(map(MOVED_ASIDE.search, folder.relative_to(path).parts))
            if not aside and {"config.json", "metrics.csv"} <= {*names}:
                folders.setdefault(folder.resolve(), folder)
    if not folders:
        raise UserError(
            f"no runs found in {', '.join(map(str, paths))}: a run folder holds config.json and "
            "metrics.csv (python train.py makes them)"
        )
    return list(folders.values())


def _warn(error: OSError) -> None:
    console.print_note(f"{error.filename} is left out, as it could not be read ({error.strerror})")


def read_record(path: Path) -> Record:
    """Read a run folder. Raises UserError, naming the file, where one makes no sense."""
    run = read_run(path)
    saved, metrics = run.folder.read_config(), run.folder.read_metrics()
    results = run.folder.read_results()
    assert saved is not None  # `read_run` has read it
    config: RunConfig = {**saved, "settings": {**saved["settings"], **run.settings()}}
    settings = decisive_settings(config, results)
    step = metrics[-1]["step"] if metrics else 0
    if results:
        refuse_results_of_others(path, results, run.settings())
    return Record(run, saved, settings, metrics, step, dict(results or {}))


def group(records: Iterable[Record]) -> tuple[list[Row], list[Record]]:
    """Put runs that agree in everything but the seed into one row; also return those that repeat another.

    The same settings and seed twice are one measurement: the finished run (else the one with more updates,
    else the first) is kept, whatever its error.
    """
    groups: dict[str, dict[int, Record]] = {}
    repeated: list[Record] = []
    for record in sorted(records, key=lambda r: (not r.results, -r.step)):
        seeds = groups.setdefault(repr(sorted(record.settings.items())), {})
        if seeds.setdefault(record.run.config.seed, record) is not record:
            repeated.append(record)
    rows = [Row([seeds[seed] for seed in sorted(seeds)]) for seeds in groups.values()]
    return sorted(rows, key=_order), repeated


def choose_best(rows: Iterable[Row]) -> Record | None:
    """The finished run of lowest validation error, on CIFAR-10 if there is one; None if there is none."""
    records = [r for row in rows for r in row.finished if r.results.get("val_error") is not None]

    def key(record: Record) -> tuple[bool, bool, float]:
        # A run that starts from a trained net may validate with images that the net has seen.
        config = record.run.config
        return config.dataset != "cifar10", bool(config.weights), record.results["val_error"]

    return min(records, key=key, default=None)


def _order(row: Row) -> tuple:
    config = row.config
    return (
        config.dataset != "cifar10", config.dataset, [*RECIPES, row.recipe.name].index(row.recipe.name),
        -row.recipe.steps, row.recipe_text, config.model != "resnet", config.depth,
        config.shortcut, row.precision,
    )  # fmt: skip
