"""Checkpoints: every variable of a run by its name, and its progress, in one file.

NumPy's `.npz`: one file, read without pickle, with the exact bits of every array and a CRC of each. Keras's
own savers keep neither the metrics nor the batch, and TensorFlow's and Orbax's checkpoints are several
files, which cannot be renamed as one. Nothing random is kept: order, crops and flips are functions of
(seed, step).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

import msgspec
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.runs.files import atomic, unreadable
from keras_resnet.runs.folder import Count, MetricsRow, NotNegative

if TYPE_CHECKING:
    import keras

Arrays = dict[str, np.ndarray]


class State(TypedDict):
    """What a checkpoint holds besides the variables."""

    step: Count
    rows: list[MetricsRow]
    seconds: NotNegative  # of training alone, over all sessions
    timed: NotRequired[Count]  # updates that took these `seconds`; 0.1.0 did not write it
    settings: NotRequired[dict[str, bool | int | float | str | None]]  # likewise
    stopped_early: NotRequired[bool]


def capture(net: keras.Model, model: keras.Model) -> Arrays:
    """The values of all variables: of the net, and of the optimizer and the metrics of its model."""
    return {name: variable.numpy() for name, variable in _variables(net, model).items()}


def restore(net: keras.Model, model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Give the variables a checkpoint's values. Raises UserError where names or shapes differ."""
    variables = _variables(net, model)
    # Version 0.1.0 kept a generator's state, and the optimizer's variables by their position.
    arrays = {name: array for name, array in arrays.items() if not name.startswith("random/")}
    for k, variable in enumerate(model.optimizer.variables):
        if f"optimizer/{k}" in arrays:
            arrays[f"optimizer/{variable.path}"] = arrays.pop(f"optimizer/{k}")
    different = sorted(variables.keys() ^ arrays.keys()) or [
        name for name, v in variables.items() if tuple(v.shape) != arrays[name].shape
    ]
    if different:
        raise UserError(
            f"the newest checkpoint does not fit this version of the program ({len(different)} "
            f"variables differ, e.g. {different[0]}); use train's `restart`"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _variables(net: keras.Model, model: keras.Model) -> dict[str, keras.Variable]:
    named: dict[str, keras.Variable] = {f"net/{v.path}": v for v in net.variables}
    # By path, so that two slots of one shape cannot change places unnoticed.
    named |= {f"optimizer/{v.path}": v for v in model.optimizer.variables}
    metrics = [v for metric in model.metrics for v in metric.variables]
    return named | {f"metric/{k}": v for k, v in enumerate(metrics)}


def save(folder: Path, arrays: Mapping[str, np.ndarray], state: State) -> None:
    """Write `checkpoints/step-<step>.npz` into a run folder, and delete all but the newest two."""
    encoded = np.frombuffer(json.dumps(state, allow_nan=False).encode(), np.uint8)
    path = folder / "checkpoints" / f"step-{state['step']:08d}.npz"
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays, state=encoded)  # type: ignore[arg-type]
    for old in list_checkpoints(folder)[2:]:
        with contextlib.suppress(OSError):
            old.unlink()


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files of a run folder, newest first. Raises UserError where they cannot be listed."""
    path = folder / "checkpoints"
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(path, error) from None
    named = [path / name for name in names if re.fullmatch(r"step-\d+\.npz", name)]
    return sorted(named, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def load(path: Path) -> tuple[Arrays, State]:
    """Read a checkpoint. Raises OSError where it cannot be read, ValueError where it is damaged."""
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                members = {name: archive[name] for name in archive.files}
            members.pop("sha256", None)  # versions before 0.3 wrote a checksum
            return members, msgspec.json.decode(members.pop("state").tobytes(), type=State)
        except Exception as error:  # zipfile, NumPy and msgspec raise many kinds on damaged bytes
            raise ValueError(str(error)) from None
