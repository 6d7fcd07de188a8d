"""May this run go on, and from where? Which settings a resume may change, and which decide a run's numbers.

Resuming, averaging over seeds and the report share this one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.recipes import PAPER
from keras_resnet.runs import checkpoint
from keras_resnet.runs.checkpoint import Arrays, State
from keras_resnet.runs.files import unreadable
from keras_resnet.runs.folder import RunConfig, RunResults

if TYPE_CHECKING:
    from keras_resnet.runs.run import Run

# What a resume may change: where a run lies, which of several seeds it is, and what it trains on. The
# setting `precision` is among them because "auto" depends on the machine: the precision that was used stands
# beside the settings in config.json and is compared by itself.
PLACES = (
    "data_dir", "unreadable", "output_dir", "name", "runs", "seed", "precision", "devices",
)  # fmt: skip
# How often a run is evaluated and saved: the weights are the same, the rows of metrics.csv are not.
INTERVALS = ("eval_every", "checkpoint_every")
# Settings that older versions did not write: 0.1.0 had the paper's recipe alone, 0.2.0 had no Muon.
BEFORE = {
    "recipe": "paper",
    "schedule": PAPER.schedule,
    "warmup_shape": PAPER.warmup_shape,
    "nesterov": PAPER.nesterov,
    "kernel_rate": PAPER.kernel_rate,
    "crop_padding": PAPER.crop_padding,
    "image_size": None,
    "augment": "crop+flip",
}


def upgraded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run of any version, as this version would write them."""
    settings = dict(settings)
    if settings.get("recipe") == "fast" and "crop_padding" not in settings:
        settings["recipe"] = "fast-0.2"  # what `fast` meant in 0.2.0
    return {**BEFORE, **settings}


def decisive(config: RunConfig) -> dict[str, Any]:
    """What decides a run's weights, but for its seed: runs that agree in it may be averaged."""
    settings = upgraded(config["settings"])
    kept = {k: v for k, v in settings.items() if k not in (*PLACES, *INTERVALS)}
    return {**kept, "precision": config.get("precision")}


def read_results(run: Run, backend: str | None = None) -> RunResults | None:
    """results.json of a run, once it is known that its folder holds this run; None while it is not finished.

    Args:
        run: what is to be trained there.
        backend: Keras's backend; None skips the comparison with the one of an unfinished run.

    Raises:
        UserError: where the folder holds a run with other settings, another run's results, or files that
            make no sense.
    """
    path = run.folder.path
    began, results = run.folder.read_config(), run.folder.read_results()
    if began is None and results is None:
        return None
    if began is None or "precision" not in began:
        raise UserError(
            f"{path} has no config.json of this program beside its other files; use another `name`, or "
            "`restart` to move the run aside and start over"
        )
    now, used, asked = run.settings(), began["precision"], run.config.precision
    refuse_other_settings(
        path,
        {**began["settings"], "precision used": used},
        {**now, "precision used": used if asked == "auto" else asked},
    )
    if results is None:
        backend_there = began.get("backend", "tensorflow")
        if backend and backend_there != backend:
            raise UserError(
                f"{path} holds a run that was begun on Keras's backend {backend_there}, to whose bits "
                f"{backend} cannot go on: set KERAS_BACKEND={backend_there} to resume it, or give "
                "another `name`"
            )
        return None
    for key in ("model", "depth", "seed", "steps"):
        there = results.get(key, now[key])
        if there != now[key] and not (key == "steps" and results.get("stopped_early")):
            raise UserError(
                f"{path / 'results.json'} must have {key} {now[key]}, as config.json beside it. "
                f"Received: {there}; it is another run's: move it away"
            )
    # Without its net, a run is finished once more, from its last checkpoint.
    return results if run.folder.model_path.is_file() else None


def refuse_other_settings(path: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UserError where the run in a folder was begun with other settings than those asked for.

    Args:
        path: the run folder.
        there: settings of the run that was begun, of this or an earlier version.
        now: settings that are asked for.
    """
    there = upgraded(there)
    different = [
        f"`{key}` {there.get(key)} there, {now.get(key)} now"
        for key in {**there, **now}  # also what only one of the two programs knows
        if key not in PLACES and there.get(key) != now.get(key)
    ]
    if different:
        raise UserError(
            f"{path} holds a run with other settings: {'; '.join(different)}. Give the same "
            "settings to resume it, another `name`, or `restart` to move it aside and start over"
        )


def refuse_other_images(path: Path, began: RunConfig, content_hash: str | None) -> None:
    """Raise UserError where the run in a folder was begun with other images than those that were read."""
    there = began.get("content_hash")
    if there != content_hash:
        raise UserError(
            f"{path} holds a run with other images: their hash is {str(there)[:12]} there, "
            f"{str(content_hash)[:12]} now. Give the same images to resume it, another `name`, or "
            "`restart` to move it aside and start over"
        )


def find_checkpoint(run: Run) -> tuple[Arrays, State] | None:
    """The newest good checkpoint, that a run goes on from; None where it begins. Damaged ones are named.

    Raises:
        UserError: where checkpoints are gone, none is good, one cannot be read, or it is of a run with
            other settings. Nothing is deleted.
    """
    path, problems = run.folder.path, list[str]()
    newest = None
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
            f"({'; '.join(problems) or 'there is none'}). Nothing was deleted; `restart` moves the run "
            "aside and starts over"
        )
    if newest and "settings" in newest[1]:  # config.json alone may have been lost or changed
        refuse_other_settings(path, newest[1]["settings"], run.settings())
    for problem in problems:
        console.print_error(f"warning: {problem}; going on from the one before it")
    return newest
