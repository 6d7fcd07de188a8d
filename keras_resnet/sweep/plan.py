"""The runs of a sweep, and how far each is: functions of settings and files."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from keras_resnet.errors import UserError
from keras_resnet.runs import checkpoint
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.resume import read_results
from keras_resnet.runs.run import Run, runs_of
from keras_resnet.sweep.task import Job

# Settings that take several values -> what names of experiments call them; None where the default name of
# an experiment holds the value already.
SEVERAL = {
    "model": None, "depth": None, "shortcut": None, "dataset": None, "recipe": None,
    "precision": "", "steps": "steps", "batch_size": "batch", "learning_rate": "lr",
    "warmup_steps": "warmup", "weight_decay": "wd", "momentum": "momentum", "crop_padding": "crop",
}  # fmt: skip
PAPER_SEEDS = 5  # of the PyTorch reproduction


@dataclasses.dataclass
class SweepRun:
    """A run of a sweep, and how far it is."""

    run: Run
    state: Literal["waiting", "running", "finished", "failed"] = "waiting"
    why: str = ""  # why it failed
    saved: int = 0  # update of the newest checkpoint
    step: int = 0  # updates up to the newest evaluation or checkpoint
    val_error: float | None = None  # percent
    test_error: float | None = None  # percent
    rate: float | None = None  # images per second
    job: Job | None = None  # what a worker needs to know; None for one that is not to be trained
    task: Any = None  # Ray's reference, while Ray has it
    log_bytes: int = 0  # size of its log when Ray got it
    not_before: float = 0.0  # when it may be given to Ray, by `time.monotonic`
    # Update of its newest checkpoint -> deaths of its process there.
    losses: Counter[int] = dataclasses.field(default_factory=Counter)

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "failed")

    @property
    def log(self) -> Path:
        """The file that its process writes to, beside the run folder."""
        return self.run.folder.path.with_name(f"{self.run.folder.path.name}.log")

    @property
    def diverged(self) -> Path:
        """The file that tells a sweep that the run diverged; `train --restart` moves it aside."""
        return self.run.folder.path / "diverged.txt"

    def look(self) -> None:
        """Read from the run folder how far it is, and whether it is finished or has failed."""
        folder = self.run.folder
        try:
            results, metrics = read_results(self.run), folder.read_metrics()
            newest = checkpoint.list_checkpoints(folder.path)[:1]
        except UserError as error:
            self.state, self.why = "failed", str(error)
            return
        for path in newest:
            self.saved = self.step = checkpoint.step_of(path)
        if metrics:
            self.step = max(self.saved, metrics[-1]["step"])
            self.val_error, self.rate = metrics[-1]["val_error"], metrics[-1]["images_per_second"]
        if results is not None:
            self.state, self.test_error = "finished", results["test_error"]
            self.step = results.get("steps", self.run.recipe.steps)
        elif self.diverged.is_file():
            self.state, self.why = "failed", self.diverged.read_text(errors="replace").strip()


def plan_runs(
    settings: Mapping[str, Any],
    several: Mapping[str, Sequence[Any]],
    nets: Sequence[tuple[str, int]] = (),
) -> list[Run]:
    """The runs of all combinations with all seeds, the longest first.

    `nets` are values of `model` and `depth` that belong together, in place of those in `several`. Raises
    UserError for a value that no run can have.
    """
    labels = [key for key in several if SEVERAL[key] is not None and len(set(several[key])) > 1]
    combinations = itertools.product(*several.values())
    chosen = [dict(zip(several, each, strict=True)) for each in combinations]
    if nets:
        chosen = [{**own, "model": m, "depth": d} for own in chosen for m, d in nets]
    configs: dict[str, TrainConfig] = {}
    for own in chosen:
        if own.get("model") == "plain" and (nets or "resnet" in several.get("model", ())):
            own.pop("shortcut", None)  # it is for the residual nets
        config = TrainConfig(**{**settings, **own, "name": None})
        name = "-".join([config.experiment, *(f"{SEVERAL[key]}{own[key]}" for key in labels)])
        if configs.setdefault(name, config) != config:
            raise UserError(f"{name} would be the name of two experiments: train them separately")
    runs = []
    for name, config in configs.items():
        if given := settings.get("name"):
            name = given if len(configs) == 1 else f"{given}-{name}"
        runs += runs_of(dataclasses.replace(config, name=name))
    # A long run that began last would train alone at the end.
    return sorted(runs, key=lambda r: -r.config.depth * r.recipe.steps * r.recipe.batch_size)
