"""Read the weights in a PyTorch checkpoint: a file of `torch.save`, or safetensors.

The first bytes of a file say which it is, not its name: `pytorch_model.bin` may be either.
"""

import contextlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_resnet.console import printable
from keras_resnet.errors import UserError, missing

LIMIT = 2**30  # bytes of a checkpoint; ResNet-1202 with Adam's state in float32 has 233 million
# Tensors of a training script: counters, the class weights of a loss, the counts of a metric.
_NOT_OF_THE_NET = re.compile(
    r"n_averaged|(\w+_)?(criterion|loss(_fn)?|metrics?|acc|accuracy|precision|recall|f1|auroc|confmat)\d*"
)


class Checkpoint(NamedTuple):
    """The weights in a file, and what else it holds."""

    tensors: dict[str, np.ndarray]  # float32, by PyTorch's names, in the order of the file
    mean: list[float] | None  # of the net's input, in units of 0..1; None if the file does not say
    std: list[float] | None
    padding: str | None  # of its shortcuts; None if the file does not say
    ignored: list[str]  # names in the file of what is not part of the net


def read_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Read the state_dict in a file of `torch.save`, which needs PyTorch, or of safetensors.

    Only tensors and containers are unpickled: no code of the file runs. `key` says which state_dict, where a
    file of `torch.save` holds several, e.g. `"ema"` or `"model.net"`. Raises UserError where the file is
    missing, too large, of another kind or damaged.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")
        with open(path, "rb") as file:
            head = file.read(9)
        members = zipfile.ZipFile(path).infolist() if zipfile.is_zipfile(path) else []
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"the checkpoint must be a file that can be read. Received: {path} ({error})"
        ) from None
    if max(path.stat().st_size, sum(member.file_size for member in members)) > LIMIT:
        raise UserError(
            f"the checkpoint must have at most {LIMIT:,} bytes. Received: {path}, which has more"
        )
    if head[:4] == b"\x89HDF" or any(m.filename == "model.weights.h5" for m in members):
        raise UserError(
            f"the checkpoint must be PyTorch's. Received: {path}, a file of Keras, which needs no "
            "conversion; open it with keras.models.load_model, or with load_weights of the same net"
        )
    ignored: list[str] = []
    written: dict[str, Any] = {}
    if members or (head[:1] == b"\x80" and head[8:] != b"{"):
        tensors, ignored = _read_torch(path, key)
    elif head[8:] != b"{":  # a safetensors file begins with the length of its header, which is JSON
        raise UserError(
            "the checkpoint must be a whole file of torch.save(net.state_dict()) or of safetensors. "
            f"Received: {path}, which begins with {head!r}"
        )
    elif key is not None:
        raise UserError("`key` is for files of torch.save: safetensors hold one state_dict")
    else:
        tensors, written = _read_safetensors(path)
    mean, std = _take_normalization(tensors)
    mean, std = written.get("mean", mean), written.get("std", std)
    for name in list(tensors):
        if any(map(_NOT_OF_THE_NET.fullmatch, name.lower().split("."))):
            ignored.append(name)
            del tensors[name]
    return Checkpoint(tensors, mean, std, written.get("padding"), ignored)


def _take_normalization(tensors: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """Remove a normalization module's mean and std, three numbers each, and return them, 0..1."""
    for name in [name for name in tensors if name.rpartition(".")[2] == "mean"]:
        pair = [name, f"{name.removesuffix('mean')}std"]
        if all(part in tensors and tensors[part].size == 3 for part in pair):
            mean, std = (tensors.pop(part).ravel() for part in pair)
            unit = 255 if std.max() > 1 else 1  # of a net whose input is 0..255
            return (mean / unit).tolist(), (std / unit).tolist()
    return None, None


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors by name, and the mean, std and padding in the metadata of a file that `export` wrote."""
    from safetensors import SafetensorError, safe_open

    known: dict[str, Any] = {}
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            # By name: the file's own order is by dtype.
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        with contextlib.suppress(KeyError, TypeError, ValueError):  # of another program
            written = json.loads(metadata["normalization"])
            known = {key: [float(x) for x in written[key]] for key in ("mean", "std")}
            known["padding"] = "split" if written.get("padding") == "split" else None
        floats = {k: v.astype("float32", casting="same_kind") for k, v in tensors.items()}
        return floats, known
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise UserError(f"{path} could not be read as safetensors: {printable(error)}") from None


def _read_torch(path: Path, key: str | None) -> tuple[dict[str, np.ndarray], list[str]]:
    """Tensors by name, and the names of what else is there."""
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{missing('torch', f'reading {path.name}')}; safetensors need no PyTorch"
        ) from None
    content, classes = _unpickle(torch, path)
    state_dicts = dict(_state_dicts(content, torch.Tensor))
    if classes and not state_dicts:
        raise UserError(
            f"{path} holds objects of the classes {printable(', '.join(classes))}, which could not be "
            "read without running code; save the weights alone: torch.save(net.state_dict(), ...)"
        )
    if key in state_dicts:
        state_dicts = {key: state_dicts[key]}
    if len(state_dicts) != 1 or key not in (None, *state_dicts):
        names = printable(", ".join(map(repr, state_dicts)) or "none")
        raise UserError(
            f"{path} must hold one state_dict, or `key` name one of them. Received: {names}"
        )
    ((prefix, state),) = state_dicts.items()
    tensors = {str(name): value for name, value in state.items() if torch.is_tensor(value)}
    ignored = [str(name) for name in state if str(name) not in tensors]
    if prefix:
        ignored += [str(name) for name in content if str(name) != prefix.split(".")[0]]
    if 4 * sum(tensor.numel() for tensor in tensors.values()) > LIMIT:  # views of a small file
        raise UserError(f"{path}: the tensors have more than {LIMIT:,} bytes")
    try:
        return {n: t.detach().to(torch.float32).numpy() for n, t in tensors.items()}, ignored
    except (TypeError, RuntimeError, NotImplementedError) as error:  # sparse, quantized
        raise UserError(f"{path} holds a tensor that could not be read: {error}") from None


class _Placeholder:
    """Stands in for an object of any pickled class: accepts its arguments and state, and keeps nothing."""

    def __init__(self, *args: Any): ...

    def __setstate__(self, state: Any) -> None: ...


def _unpickle(torch: Any, path: Path) -> tuple[Any, list[str]]:
    """What `torch.save` wrote, and the names of the classes whose objects are placeholders."""
    classes: list[str] = []
    try:
        # PyTorch does not look at the checksums.
        if zipfile.is_zipfile(path) and (damaged := zipfile.ZipFile(path).testzip()):
            raise ValueError(f"the checksum of {damaged} does not match")
        while True:
            try:
                with torch.serialization.safe_globals([(_Placeholder, name) for name in classes]):
                    return torch.load(path, map_location="cpu", weights_only=True), classes
            except Exception as error:
                refused = re.search(r"GLOBAL (\S+)", str(error))
                if refused is None or refused[1] in classes:
                    raise
                classes.append(refused[1])
    except Exception as error:  # torch raises whatever its unpickler met: KeyError, EOFError, ...
        if classes:
            return None, classes
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].partition(". ")[0]
        raise UserError(
            f"{path} could not be read ({printable(reason) or type(error).__name__}); it must be a "
            "whole file of torch.save(net.state_dict())"
        ) from None


def _state_dicts(content: Any, tensor: Any, path: str = "") -> Iterator[tuple[str, Mapping]]:
    """The state_dicts in nested dicts: (dotted keys that lead to it, itself)."""
    if not isinstance(content, Mapping) or path.count(".") > 2:
        return
    kernels = (v for name, v in content.items() if str(name).endswith("weight"))
    if any(isinstance(value, tensor) and value.dim() == 4 for value in kernels):
        yield path, content
        return
    for name, value in content.items():
        yield from _state_dicts(value, tensor, f"{path}.{name}" if path else str(name))
