"""May this run go on, and from where? Which settings may a resume change, and which decide its numbers?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.nets.family import MODELS
from keras_resnet.recipes import PAPER
from keras_resnet.runs import checkpoint
from keras_resnet.runs.checkpoint import Arrays, State
from keras_resnet.runs.config import OF_WEIGHTS, TrainConfig
from keras_resnet.runs.files import unreadable
from keras_resnet.runs.folder import RunConfig, RunResults

if TYPE_CHECKING:
    from keras_resnet.runs.run import Run

Settings = Mapping[str, Any]
# What a resume may change: where a run's files are, how many seeds the command has, and its devices. The
# setting `precision` is among them because "auto" depends on the machine: config.json has the
# precision that was used next to the settings, and it is compared separately.
CHANGEABLE = (
    "data_dir", "unreadable", "output_dir", "name", "runs", "precision", "devices", "log",
)  # fmt: skip
# How often a run is evaluated and saved changes the rows of metrics.csv, but not the weights.
INTERVALS = ("eval_every", "checkpoint_every")
# Settings that older versions did not write: 0.1.0 had the paper's recipe alone, 0.2.0 had no Muon.
BEFORE = {
    "recipe": "paper",
    "schedule": PAPER.schedule,
    "nesterov": PAPER.nesterov,
    "kernel_rate": PAPER.kernel_rate,
    "crop_padding": PAPER.crop_padding,
    "image_size": None,
    "augment": "crop+flip",
    "weights": None,
    "freeze": False,
    "keep": None,
}


def upgrade(settings: Settings) -> dict[str, Any]:
    """Settings of a run of any version, as this version would write them."""
    settings = dict(settings)
    if settings.get("recipe") == "fast" and "crop_padding" not in settings:
        settings["recipe"] = "fast-0.2"  # what `fast` meant in 0.2.0
    settings.pop("warmup_shape", None)  # of 0.2.0: it repeated `schedule`
    return {**BEFORE, **settings}


def decisive_settings(config: RunConfig, results: RunResults | None) -> dict[str, Any]:
    """What decides a run's weights, but for its seed: runs that agree in it may be averaged."""
    found: Any = results or {}
    settings = upgrade(config["settings"])
    kept = {k: v for k, v in settings.items() if k not in (*CHANGEABLE, *INTERVALS, "seed")}
    images = config.get("content_hash", "")[:12] or None
    # `images` says more than the size that they were given.
    kept |= {"precision": config.get("precision"), "images": images, "image_size": None}
    if found.get("stopped_early"):  # by a callback, which is no setting
        kept["stopped_early"] = True
    if kept["model"] not in MODELS:  # the user may have changed the function
        kept["parameters"] = found.get("parameters")
    return kept


def read_results(run: Run, backend: str | None = None) -> RunResults | None:
    """Check that a run's folder holds this run, and return its results.json, None while it is unfinished.

    Raises UserError where the folder holds a run with other settings, an unfinished one on another `backend`
    of Keras (None: any will do), another run's results, or files that make no sense.
    """
    path = run.folder.path
    began, results = run.folder.read_config(), run.folder.read_results()
    if began is None and results is None and not run.folder.model_path.exists():
        return None
    if began is None or "precision" not in began:
        raise UserError(
            f"{path} has no config.json of this program beside its other files; use another `name`, or "
            "train's `restart` to move the run aside and start over"
        )
    now, used, asked = run.settings(), began["precision"], run.config.precision
    if run.config.weights:  # set by the weights, which a sweep does not open
        now |= {key: began["settings"].get(key) for key in OF_WEIGHTS}
    refuse_others(path, upgrade(began["settings"]), now)
    if asked != "auto":
        refuse_others(path, {"precision used": used}, {"precision used": asked})
    if results is None:
        there = began.get("backend", "tensorflow")
        if backend and there != backend:
            raise UserError(
                f"{path} holds a run that was begun on Keras's backend {there}, to whose bits {backend} "
                f"cannot go on: set KERAS_BACKEND={there} to resume it, or give another `name`"
            )
        return None
    refuse_results_of_others(path, results, now)
    # Without its net, a run is finished once more, from its last checkpoint.
    return results if run.folder.model_path.is_file() else None


def refuse_results_of_others(path: Path, results: RunResults, settings: Settings) -> None:
    """Raise UserError where results.json is of a run with other settings than the folder's."""
    for key in ("model", "depth", "seed", "steps"):
        found = results.get(key, settings[key])
        if found != settings[key] and not (key == "steps" and results.get("stopped_early")):
            raise UserError(
                f"{path / 'results.json'} must have {key} {settings[key]}, as config.json beside it. "
                f"Received: {found}; it is another run's: move it away"
            )


def refuse_others(path: Path, there: Settings, now: Settings, what: str = "settings") -> None:
    """Raise UserError where the run in a folder was begun with other settings than are asked for now."""
    # The warm-up follows the steps: one of the two is enough to read.
    ignored = (*CHANGEABLE, *(["warmup_steps"] if there.get("steps") != now.get("steps") else []))
    different = [
        f"{f'`{key}`' if hasattr(TrainConfig, key) else key} {there.get(key)} there, {now.get(key)} now"
        for key in {**there, **now}  # settings that only one of the two versions has, too
        if key not in ignored and there.get(key) != now.get(key)
    ]
    if different:
        raise UserError(
            f"{path} holds a run with other {what}: {'; '.join(different)}. Give the same {what} "
            "to resume it, another `name`, or train's `restart` to move it aside and start over"
        )


def find_checkpoint(run: Run) -> tuple[Arrays, State] | None:
    """The newest good checkpoint, from which a run goes on; None for a new run. Warns of damaged ones.

    Raises UserError where checkpoints are gone, none is good, one cannot be read or is of a run with other
    settings. Nothing is deleted.
    """
    path, problems, newest = run.folder.path, list[str](), None
    for file in checkpoint.list_checkpoints(path):
        try:
            newest = checkpoint.load(file)
            break
        except ValueError as error:
            problems.append(f"{file.name} is damaged ({error})")
        except OSError as error:
            raise unreadable(file, error) from None
    rows = run.folder.read_metrics()
    if newest is None and (problems or (rows and rows[-1]["step"] >= run.config.checkpoint_every)):
        raise UserError(
            f"{path} holds a run that has begun, but no checkpoint in it is good "
            f"({'; '.join(problems) or 'there is none'}). Nothing was deleted; train's `restart` moves "
            "the run aside and starts over"
        )
    if newest and "settings" in newest[1]:  # config.json may have been changed since
        refuse_others(path, upgrade(newest[1]["settings"]), run.settings())
    for problem in problems:
        console.print_error(f"warning: {problem}; going on from the one before it")
    return newest
