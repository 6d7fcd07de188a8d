"""The trained nets that come with the package: `keras_resnet.zoo.list()`, and the names they go by.

`weights/registry.json` has an entry per net, written by `tools/publish.py` from the run that made it.
The net itself lies in `weights/<name>-<dataset>/` as the folder of that run (config.json, results.json,
model.keras), with a card. It is opened only if its SHA-256 is that of its entry. Keras, which is slow to
import, is not needed here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from keras_resnet.errors import UserError
from keras_resnet.runs import files

WEIGHTS = Path(__file__).resolve().parent / "weights"
FILE = "registry.json"
DEFAULT = "resnet20"  # for `predict` and `evaluate` without --model: small, fast, and a ResNet
EXPECTED = (
    "a .keras file, a run folder (with model.keras), a SavedModel folder (with saved_model.pb) "
    "or an .onnx file"
)
_AGAIN = "install the package again"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A run that a net was chosen from; `val_error` is in percent."""

    recipe: str
    steps: int
    seed: int
    val_error: float


@dataclasses.dataclass(frozen=True)
class Entry:
    """A trained net that comes with the package. Errors are in percent."""

    name: str  # as `--model` takes it: "resnet20"
    model: Literal["resnet", "plain"]
    depth: int
    dataset: Literal["cifar10"]  # as `weights` takes it
    file: str  # of the net, below the folder of the registry
    sha256: str  # of that file
    recipe: str
    steps: int  # updates
    seed: int
    commit: str  # of this package, with which it was trained
    val_error: float  # after the last update; by it, and nothing else, the net was chosen
    test_error: float  # measured once, after the last update
    parameters: int  # trainable ones
    candidates: tuple[Candidate, ...]  # the runs that it was chosen from, the best first: its own

    @property
    def call(self) -> str:
        """The Python that builds it: `resnet(depth=20, weights='cifar10')`."""
        return f"{self.model}(depth={self.depth}, weights={self.dataset!r})"


class _Registry(msgspec.Struct):
    nets: tuple[Entry, ...]


def entries(weights: Path | None = None) -> Sequence[Entry]:
    """The trained nets that come with the package: residual ones before plain ones, by depth.

    Raises UserError where registry.json in the folder `weights`, by default the package's, is damaged.
    """
    path = (weights or WEIGHTS) / FILE
    data = files.read_bytes(path)
    if data is None:
        raise UserError(f"{path} must list the trained nets, but is missing; {_AGAIN}")
    try:
        return [*msgspec.json.decode(data, type=_Registry).nets]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} could not be read ({error}); {_AGAIN}") from None


def find(model: str | os.PathLike[str], expected: str = EXPECTED) -> Entry | None:
    """The net of the zoo that `model` names; None where `model` is the path of a file or a folder.

    A file or a folder of that name in the working directory comes before the net of the zoo. `expected` says
    what is accepted beside a name, in the UserError for what is neither.
    """
    if os.path.exists(model):
        return None
    by_name = {entry.name: entry for entry in entries()}
    if (name := os.fspath(model)) not in by_name:
        raise UserError(
            f"the model must be the name of a trained net ({', '.join(by_name)}), {expected}. "
            f"Received: {name}, which does not exist"
        )
    return by_name[name]


def folder(entry: Entry) -> Path:
    """The run folder of a net of the zoo. Raises UserError where the net's file is missing or damaged."""
    path = WEIGHTS / entry.file
    data = files.read_bytes(path)
    if data is None:
        raise UserError(f"{path}, the net {entry.name} of the zoo, is missing; {_AGAIN}")
    if (sha256 := hashlib.sha256(data).hexdigest()) != entry.sha256:
        raise UserError(
            f"{path}, the net {entry.name} of the zoo, is damaged: its SHA-256 must be "
            f"{entry.sha256[:12]}..., that of registry.json. Received: {sha256[:12]}...; {_AGAIN}"
        )
    return path.parent


def resolve(model: str | os.PathLike[str] | None = None) -> Path:
    """The path that a name or a path means; None means the net `DEFAULT` of the zoo."""
    if model is None:
        return folder(next(entry for entry in entries() if entry.name == DEFAULT))
    entry = find(model)
    return Path(model) if entry is None else folder(entry)


list = entries  # the public name: keras_resnet.zoo.list()
