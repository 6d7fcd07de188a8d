"""The trained nets that come with the package, `keras_resnet.zoo.list()`, and their names.

`weights/registry.json`, written by tools/publish.py, has one entry per net. The net is in
`weights/<name>-<dataset>/`, the folder of the run that trained it, with a card.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from keras_resnet.errors import UserError

WEIGHTS = Path(__file__).resolve().parent / "weights"
FILE = "registry.json"
DEFAULT = "resnet20"  # for `predict` and `evaluate` without --model: small, fast, and a ResNet
EXPECTED = (
    "a .keras file, a run folder (with model.keras), a SavedModel folder (with saved_model.pb) "
    "or an .onnx file"
)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A run that a net was chosen from. Errors are in percent."""

    recipe: str
    steps: int
    seed: int
    val_error: float | None  # None: it trained on all images


@dataclasses.dataclass(frozen=True)
class Entry(Candidate):
    """A trained net that comes with the package, and the run that trained it."""

    name: str  # for `--model`, e.g. "resnet20"
    model: Literal["resnet", "plain"]
    depth: int
    dataset: Literal["cifar10"]  # for `resnet(weights=...)`
    file: str  # of the net, below the folder of the registry
    sha256: str  # of that file
    commit: str  # of this package, with which it was trained
    test_error: float  # measured once, after the last update, in float32
    changed_classes: int | None  # test images whose class float16 changes; None: a float32 file
    parameters: int  # trainable ones
    candidates: tuple[Candidate, ...]  # the best first: its own run


def entries(weights: Path | None = None) -> Sequence[Entry]:
    """The nets that registry.json lists, in `weights` or in the package: residual ones first, by depth."""
    data = ((weights or WEIGHTS) / FILE).read_bytes()
    return msgspec.json.decode(data, type=dict[str, tuple[Entry, ...]])["nets"]


def folder(name: str) -> Path:
    """The run folder of a trained net. Raises UserError for an unknown name or a damaged file."""
    by_name = {entry.name: entry for entry in entries()}
    if name not in by_name:
        raise UserError(
            f"the model must be the name of a trained net ({', '.join(by_name)}), {EXPECTED}. "
            f"Received: {name}, which does not exist"
        )
    path = WEIGHTS / by_name[name].file
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != by_name[name].sha256:
        raise UserError(
            f"{path}, the trained net {name}, is {'damaged' if data else 'missing'}: its SHA-256 must be "
            "that of registry.json; install the package again"
        )
    return path.parent


def resolve(model: str | os.PathLike[str] | None = None) -> Path:
    """The path that a path or the name of a trained net means; a file or folder that exists comes first.

    None means the net `DEFAULT`, whatever is in the working directory.
    """
    path = None if model is None else os.path.expanduser(model)
    if path is not None and os.path.exists(path):
        return Path(path)
    return folder(DEFAULT if model is None else os.fspath(model))


list = entries  # the public name: keras_resnet.zoo.list()
