"""The trained nets that come with the package, as data, and the paths that their names stand for.

`weights/registry.json` holds an entry per net, written by `keras_resnet.commands.publish` from the run
that made it, and checked here when it is read. The net itself lies in `weights/<name>-<dataset>/` as
the run folder that made it (config.json, results.json, model.keras), with a card; it is opened only
if it has the SHA-256 of its entry. Nothing here needs Keras, which is slow to import.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from keras_resnet.data.constants import CLASS_NAMES
from keras_resnet.errors import UserError
from keras_resnet.inference.open import EXPECTED
from keras_resnet.runs import files
from keras_resnet.runs.folder import MAX_JSON_BYTES, Count, Percent

WEIGHTS = Path(__file__).resolve().parent / "weights"
FILE = "registry.json"
DEFAULT = "resnet20"  # for `predict` and `evaluate` without --model: small, fast, and a ResNet
MAX_NET_BYTES = 1 << 26
_AGAIN = "install the package again"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A run that a net of the zoo was chosen from; `val_error` is in percent."""

    recipe: str
    steps: Count
    seed: int
    val_error: Percent


@dataclasses.dataclass(frozen=True)
class Entry:
    """A net of the zoo.

    Attributes:
        name: as `--model` takes it, e.g. `"resnet20"`.
        dataset: as `weights` takes it, e.g. `"cifar10"`.
        file: of the net, below the folder of the registry.
        sha256: of that file.
        steps: updates it was trained for.
        commit: of this package, with which it was trained.
        val_error: after the last update, in percent; by it, and nothing else, the net was chosen.
        test_error: measured once, after the last update, in percent.
        parameters: trainable ones.
        candidates: the runs it was chosen from, the best first; it is the first.
    """

    name: Annotated[str, msgspec.Meta(pattern="^[a-z]+[0-9]+$")]
    model: Literal["resnet", "plain"]
    depth: Count
    dataset: Literal["cifar10"]
    file: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]+/model\.keras$")]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    recipe: str
    steps: Count
    seed: int
    commit: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}$")]
    val_error: Percent
    test_error: Percent
    parameters: Count
    candidates: tuple[Candidate, ...]

    @property
    def shortcut(self) -> str | None:
        """That of the net: all residual nets of the zoo have the paper's option A."""
        return "zeropad" if self.model == "resnet" else None

    @property
    def num_classes(self) -> int:
        return len(CLASS_NAMES[self.dataset])

    @property
    def call(self) -> str:
        """The Python that builds it: `resnet(depth=20, weights='cifar10')`."""
        return f"{self.model}(depth={self.depth}, weights={self.dataset!r})"


class _Registry(msgspec.Struct):
    nets: list[Entry]


def entries(weights: Path | None = None) -> list[Entry]:
    """The trained nets that come with the package: residual ones before plain ones, by depth.

    Args:
        weights: the folder of the registry; default the package's.

    Raises:
        UserError: where registry.json is missing or makes no sense.
    """
    path = (weights or WEIGHTS) / FILE
    data = files.read_bytes(path, MAX_JSON_BYTES)
    if data is None:
        raise UserError(f"{path} must list the trained nets, but is missing; {_AGAIN}")
    try:
        return msgspec.json.decode(data, type=_Registry).nets
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} could not be read ({error}); {_AGAIN}") from None


def write(nets: Sequence[Entry], weights: Path) -> None:
    """Write registry.json atomically, in the order of `entries`."""
    ordered = sorted(nets, key=lambda net: (net.model != "resnet", net.depth))
    files.write_json(weights / FILE, {"nets": [dataclasses.asdict(net) for net in ordered]})


def folder(entry: Entry) -> Path:
    """The run folder of a net of the zoo, whose file was compared with the SHA-256 of its entry.

    Raises:
        UserError: where the file is missing, cannot be read or is another.
    """
    path = WEIGHTS / entry.file
    data = files.read_bytes(path, MAX_NET_BYTES)
    if data is None:
        raise UserError(f"{path}, the net {entry.name} of the zoo, is missing; {_AGAIN}")
    if sha256(data) != entry.sha256:
        raise UserError(
            f"{path}, the net {entry.name} of the zoo, is damaged: its SHA-256 must be "
            f"{entry.sha256[:12]}..., that of registry.json. Received: {sha256(data)[:12]}...; {_AGAIN}"
        )
    return path.parent


def sha256(data: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def find(model: str | os.PathLike[str], expected: str = EXPECTED) -> Entry | None:
    """The net of the zoo that `model` names; None for the path of a file or a folder that is there.

    A file or a folder of that name in the working directory comes before the net of the zoo.

    Args:
        model: a name or a path.
        expected: what else than a name is accepted, for the error.

    Raises:
        UserError: where it is neither; the message names the known ones.
    """
    if files.exists(Path(model)):
        return None
    known = {entry.name: entry for entry in entries()}
    if (name := os.fspath(model)) not in known:
        raise UserError(
            f"the model must be the name of a trained net ({', '.join(known)}), {expected}. "
            f"Received: {name}, which does not exist"
        )
    return known[name]


def resolve(model: str | os.PathLike[str] | None = None) -> Path:
    """The path of the net that `model` means: the only place where names become paths.

    Args:
        model: the name of a net of the zoo, or a path. A file or a folder of that name in the working
            directory comes first. None is `DEFAULT` of the zoo, whatever lies there.

    Raises:
        UserError: where it is neither, or the file of the zoo is missing or damaged.
    """
    if model is None:
        return folder(next(net for net in entries() if net.name == DEFAULT))
    entry = find(model)
    return Path(model) if entry is None else folder(entry)


def trained(model: str, depth: int, dataset: str) -> Entry:
    """The entry of a net that was trained on a data set.

    Raises:
        ValueError: where there is none; the message names the known ones.
    """
    known = entries()
    for entry in known:
        if (entry.model, entry.depth, entry.dataset) == (model, depth, dataset):
            return entry
    raise ValueError(
        f"weights must be those of a trained net: {', '.join(entry.call for entry in known)}. "
        f"Received: {model}(depth={depth}, weights={dataset!r}); leave weights out for random ones"
    )
