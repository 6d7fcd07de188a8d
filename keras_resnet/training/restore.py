"""Where a run goes on: its newest good checkpoint, and what is different from when it began."""

from __future__ import annotations

import keras
import numpy as np

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.runs import checkpoints, provenance, resume
from keras_resnet.runs.checkpoints import State
from keras_resnet.runs.folder import RunConfig
from keras_resnet.training import devices
from keras_resnet.training.begun import refuse_other_settings
from keras_resnet.training.plan import RunPlan


def find_checkpoint(plan: RunPlan) -> tuple[dict[str, np.ndarray], State] | None:
    """The checkpoint that a run goes on from; None where it begins. Damaged ones are told.

    Raises:
        UserError: where checkpoints are gone, none is good, or it is of a run with other settings.
    """
    found, problems = checkpoints.newest_checkpoint(plan.folder.path)
    problems += _missing(plan, found[1]["step"] if found else None)
    for problem in problems:
        console.print_error(f"warning: {problem}; going on from the one before it")
    if found is not None:
        state = found[1]
        if "settings" in state:  # config.json alone may have been lost or changed
            refuse_other_settings(
                plan.folder.path,
                resume.differences(state["settings"], plan.config.settings()),
            )
        if state["step"] > plan.recipe.steps:
            raise UserError(
                f"the newest checkpoint in {plan.folder.path} is of update {state['step']:,}, beyond "
                f"the run's {plan.recipe.steps:,}: it is of another run; use `restart`"
            )
    return found


def _missing(plan: RunPlan, found: int | None) -> list[str]:
    """What metrics.csv says of checkpoints that must have been there and are not."""
    rows, every = plan.folder.read_metrics(), plan.config.checkpoint_every
    written = rows[-1]["step"] // every * every if rows else 0
    if found is None and written:
        raise UserError(
            f"{plan.folder.path} has metrics up to update {rows[-1]['step']}, but its checkpoints are "
            "gone. Nothing was deleted; `restart` moves this run aside and starts over"
        )
    if (
        found is not None
        and found < written
        and len(checkpoints.list_checkpoints(plan.folder.path)) == 1
    ):
        return [f"the checkpoint of update {written} is missing"]
    return []


def print_changes(old: RunConfig) -> None:
    """Print what differs from where this run began: its bits may not be repeatable then."""
    facts: list[tuple[str, object, object]] = [
        ("other versions", old.get("versions"), provenance.versions(keras.backend.backend())),
        ("another device", old.get("device"), devices.facts()),
    ]
    onednn = devices.onednn()
    if (
        devices.device()[0] == "CPU" and onednn is not None
    ):  # on a GPU nothing of the training depends on it
        other = "another" if "onednn" in old else "perhaps another"
        recorded = old.get("onednn", "not recorded")
        facts.append((f"{other} use of oneDNN", recorded, onednn))
    for what, there, now in facts:
        if there != now:
            console.print_line(
                f"note: this run began with {what} ({there}): not exactly repeatable"
            )
