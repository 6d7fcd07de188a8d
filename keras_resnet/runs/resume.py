"""May this run go on, and from where? Which settings a resume may change, and which decide a run's numbers.

Resuming, averaging over seeds and the report share this one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.recipes import PAPER
from keras_resnet.runs import checkpoint
from keras_resnet.runs.checkpoint import Arrays, State
from keras_resnet.runs.folder import RunConfig, RunResults

if TYPE_CHECKING:
    from keras_resnet.runs.run import Run

# What a resume may change: where a run lies, which of several seeds it is, and what it trains on. The
# setting `precision` is among them because "auto" depends on the machine: the precision that was used stands
# beside the settings in config.json and is compared by itself.
PLACES = ("data_dir", "output_dir", "name", "runs", "seed", "precision", "devices")
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
}


def upgraded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run of any version, as this version would write them."""
    settings = dict(settings)
    if settings.get("recipe") == "fast" and "crop_padding" not in settings:
        settings["recipe"] = "fast-0.2"  # what `fast` meant in 0.2.0
    return {**BEFORE, **settings}


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a run that goes on may not change: "`depth` 20 there, 56 now", for each setting that differs.

    Args:
        there: settings of the run that was begun, of this or an earlier version.
        now: settings that are asked for.
    """
    there = upgraded(there)
    return [
        f"`{key}` {there.get(key)} there, {now.get(key)} now"
        for key in {**there, **now}  # also what only one of the two programs knows
        if key not in PLACES and there.get(key) != now.get(key)
    ]


def decisive(config: RunConfig) -> dict[str, Any]:
    """What decides a run's weights, but for its seed: runs that agree in it may be averaged."""
    settings = upgraded(config["settings"])
    kept = {k: v for k, v in settings.items() if k not in (*PLACES, *INTERVALS)}
    return {**kept, "precision": config.get("precision")}


class Begun(NamedTuple):
    """What lies in a run's folder: config.json and results.json; None for a file that does not exist."""

    config: RunConfig | None
    results: RunResults | None


def read_begun(run: Run, backend: str | None = None) -> Begun:
    """What was begun in the folder of a run.

    Args:
        run: what is to be trained there.
        backend: Keras's backend; None skips the comparison with the one of an unfinished run.

    Raises:
        UserError: where the folder holds a run with other settings, another run's results, or files that
            make no sense.
    """
    path = run.folder.path
    old, results = run.folder.read_config(), run.folder.read_results()
    if old is None and results is None:
        return Begun(None, None)
    if old is None or "precision" not in old:
        raise UserError(
            f"{path} has no config.json of this program beside its other files; use another `name`, or "
            "`restart` to move the run aside and start over"
        )
    different = differences(old["settings"], run.settings())
    if run.config.precision not in ("auto", old["precision"]):
        different.append(f"`precision` {old['precision']} there, {run.config.precision} now")
    refuse_other_settings(path, different)
    if results is not None:
        _check_results(run, results)
    began = old.get("backend", "tensorflow")
    if results is None and backend and began != backend:
        raise UserError(
            f"{path} holds a run that was begun on Keras's backend {began}, to whose bits {backend} "
            f"cannot go on: set KERAS_BACKEND={began} to resume it, or give another `name`"
        )
    return Begun(old, results)


def _check_results(run: Run, results: RunResults) -> None:
    """Refuse results.json where it is of another run than the config.json beside it."""
    expected: dict[str, Any] = {key: getattr(run.config, key) for key in ("model", "depth", "seed")}
    if not results.get("stopped_early"):
        expected["steps"] = run.recipe.steps
    for key, value in expected.items():
        if results.get(key, value) != value:
            raise UserError(
                f"{run.folder.path / 'results.json'} must have {key} {value}, as config.json beside it. "
                f"Received: {results.get(key)}; it is another run's: move it away"
            )


def refuse_other_settings(path: Path, different: list[str]) -> None:
    """Raise UserError where a run was begun with other settings than those asked for."""
    if different:
        raise UserError(
            f"{path} holds a run with other settings: {'; '.join(different)}. Give the same "
            "settings to resume it, another `name`, or `restart` to move it aside and start over"
        )


def find_checkpoint(run: Run) -> tuple[Arrays, State] | None:
    """The checkpoint that a run goes on from; None where it begins. Damaged ones are named.

    Raises:
        UserError: where checkpoints are gone, none is good, or it is of a run with other settings.
    """
    path = run.folder.path
    newest, problems = checkpoint.load_newest(path)
    rows, every = run.folder.read_metrics(), run.config.checkpoint_every
    written = rows[-1]["step"] // every * every if rows else 0
    if newest is None and written:
        raise UserError(
            f"{path} has metrics up to update {rows[-1]['step']}, but no checkpoint. Nothing was "
            "deleted; `restart` moves this run aside and starts over"
        )
    if newest is not None:
        state = newest[1]
        if state["step"] < written and len(checkpoint.list_checkpoints(path)) == 1:
            problems.append(f"the checkpoint of update {written} is missing")
        if "settings" in state:  # config.json alone may have been lost or changed
            refuse_other_settings(path, differences(state["settings"], run.settings()))
        if state["step"] > run.recipe.steps:
            raise UserError(
                f"the newest checkpoint in {path} is of update {state['step']:,}, beyond the run's "
                f"{run.recipe.steps:,}: it is another run's; use `restart`"
            )
    for problem in problems:
        console.print_error(f"warning: {problem}; going on from the one before it")
    return newest
