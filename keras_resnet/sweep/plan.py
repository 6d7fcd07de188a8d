"""The runs of a sweep, how far each is, and how long the rest takes: functions of settings and files."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from keras_resnet.errors import UserError
from keras_resnet.runs import checkpoint
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.resume import read_results
from keras_resnet.runs.run import Run, read_run, runs_of
from keras_resnet.sweep.task import Job

# Settings that take several values -> what names of experiments call them; None where the default name of
# an experiment holds the value already.
SEVERAL = {
    "model": None, "depth": None, "shortcut": None, "dataset": None, "recipe": None,
    "precision": "", "steps": "steps", "batch_size": "batch", "learning_rate": "lr",
    "warmup_steps": "warmup", "weight_decay": "wd", "momentum": "momentum", "crop_padding": "crop",
}  # fmt: skip
# The nets whose errors the PyTorch reproduction reports, over five seeds each.
PAPER_NETS = (("resnet", 20), ("resnet", 56), ("resnet", 110), ("plain", 20), ("plain", 56))
PAPER_TABLE = tuple({"model": model, "depth": depth} for model, depth in PAPER_NETS)
PAPER_SEEDS = 5

Net = tuple[Any, ...]  # what decides the images per second of a run on one machine


@dataclasses.dataclass
class SweepRun:
    """A run of a sweep, and how far it is. Held: another process trains it; failed: `why` says the reason."""

    run: Run
    state: Literal["waiting", "running", "held", "finished", "failed"] = "waiting"
    host: str = ""
    why: str = ""
    saved: int = 0  # update of the newest checkpoint
    step: int = 0  # updates up to the newest evaluation or checkpoint
    val_error: float | None = None  # percent
    test_error: float | None = None  # percent
    rate: float | None = None  # images per second
    job: Job | None = None  # what a worker needs to know; None for one that is not to be trained
    task: Any = None  # Ray's reference, while Ray has it
    log_bytes: int = 0  # size of its log when Ray got it
    losses: int = 0  # deaths of its process since the checkpoint of update `lost_at`
    lost_at: int = 0

    def __str__(self) -> str:
        return str(self.run)

    @property
    def log(self) -> Path:
        """The file that its process writes to, beside the run folder."""
        return self.run.folder.path.with_name(f"{self.run.folder.path.name}.log")

    @property
    def diverged(self) -> Path:
        """The file by which a sweep remembers that it diverged; `train --restart` moves it aside."""
        return self.run.folder.path / "diverged.txt"

    def look(self) -> None:
        """Read in the run folder how far it is, and whether it is finished or cannot be trained."""
        folder = self.run.folder
        try:
            results, metrics = read_results(self.run), folder.read_metrics()
        except UserError as error:
            self.state, self.why = "failed", str(error)
            return
        for path in checkpoint.list_checkpoints(folder.path)[:1]:
            self.saved = self.step = checkpoint.step_of(path)
        if metrics:
            self.step = max(self.saved, metrics[-1]["step"])
            self.val_error, self.rate = metrics[-1]["val_error"], metrics[-1]["images_per_second"]
        if results is not None:
            self.state, self.test_error = "finished", results["test_error"]
            self.step = results.get("steps", self.run.recipe.steps)
        elif self.diverged.is_file():
            self.state, self.why = "failed", self.diverged.read_text(errors="replace").strip()

    def hours_left(self, rates: Mapping[Net, float]) -> float | None:
        """Hours of training that are left; None where no rate of such a net is known."""
        if self.state in ("finished", "failed"):
            return 0.0
        rate = self.rate or rates.get(net_of(self.run))
        images = (self.run.recipe.steps - self.step) * self.run.recipe.batch_size
        return images / rate / 3600 if rate else None


def plan_runs(
    settings: Mapping[str, Any],
    several: Mapping[str, Sequence[Any]],
    nets: Iterable[Mapping[str, Any]] = ({},),
) -> tuple[list[Run], list[str]]:
    """The runs of all combinations with all seeds, the longest first, and the combinations left out.

    Args:
        settings: settings of `TrainConfig` that all runs share, `seed` and `runs` among them.
        several: settings of `SEVERAL`, each with its values.
        nets: settings that belong together, to be combined with `several`.

    Raises:
        UserError: for a value that no run can have, or where no combination is left.
    """
    values = {name: list(dict.fromkeys(given)) for name, given in several.items()}
    labels = [name for name in values if SEVERAL[name] is not None and len(values[name]) > 1]
    configs: dict[str, TrainConfig] = {}
    left_out: dict[str, None] = {}
    for net, chosen in itertools.product(nets, itertools.product(*values.values())):
        own = {"depth": TrainConfig.depth, **net, **dict(zip(values, chosen, strict=True))}
        if own.get("model") == "plain" and own.get("shortcut", "zeropad") != "zeropad":
            left_out[f"plain{own['depth']} with {own['shortcut']}: it has no shortcuts"] = None
            continue
        try:
            config = TrainConfig(**{**settings, **own, "name": None})
        except (TypeError, ValueError) as error:
            raise UserError(str(error)) from None
        label = (f"{SEVERAL[name]}{own[name]}" for name in labels)
        configs["-".join([config.experiment, *label])] = config
    if not configs:
        raise UserError(f"nothing is left to train: {'; '.join(left_out)}")
    runs = []
    for name, config in configs.items():
        if given := settings.get("name"):
            name = given if len(configs) == 1 else f"{given}-{name}"
        runs += runs_of(
            config if name == config.experiment else dataclasses.replace(config, name=name)
        )
    # A long run that began last would train alone at the end.
    runs.sort(key=lambda run: -run.config.depth * run.recipe.steps * run.recipe.batch_size)
    return runs, list(left_out)


def net_of(run: Run) -> Net:
    """What decides the images per second of a run on one machine."""
    return run.config.model, run.config.depth, run.config.shortcut, run.recipe.batch_size


def known_rates(output: Path) -> dict[Net, float]:
    """Net -> images per second: the median of the runs in an output folder, finished or not."""
    rates: dict[Net, list[float]] = {}
    for path in output.glob("*/seed-*/config.json"):
        try:
            run = read_run(path.parent)
            metrics = run.folder.read_metrics()
        except UserError:
            continue  # it is reported where that run is asked for
        if metrics and (rate := metrics[-1]["images_per_second"]):
            rates.setdefault(net_of(run), []).append(rate)
    return {net: statistics.median(several) for net, several in rates.items()}


def count_slots(nodes: Iterable[Mapping[str, float]], share: Mapping[str, float]) -> int:
    """How many runs train at once.

    Args:
        nodes: the resources of each node as Ray counts them: `{"CPU": 8.0, "GPU": 1.0, "memory": 3e10}`.
        share: what one run takes of them.
    """
    return sum(
        # A tenth of a GPU fits ten times into one, in spite of binary fractions.
        int(min(node.get(name, 0.0) / amount + 1e-9 for name, amount in share.items()))
        for node in nodes
    )
