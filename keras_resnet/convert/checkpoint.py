"""Read the state_dict in a file of PyTorch or safetensors."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.errors import UserError, missing

LIMIT = 2**30  # bytes of a checkpoint; ResNet-1202 with Adam's state in float32 has 233 million
_TORCH_SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".tar")


def read_checkpoint(path: str | Path, key: str | None = None) -> dict[str, np.ndarray]:
    """Read the state_dict in a file, in the file's order, as float32.

    Args:
        path: `.safetensors`, or a file of `torch.save` (.pt, .pth, .th, .ckpt, .tar), at most
            `LIMIT` bytes. The latter needs PyTorch; only tensors and containers are unpickled.
        key: which state_dict, where a torch file holds several, e.g. `"ema"` or `"model.net"`.

    Raises:
        UserError: where the file is missing, too large, of another kind or damaged.
    """
    path = Path(path)
    if not os.path.isfile(path):
        reason = "is none" if os.path.exists(path) else "does not exist"
        raise UserError(f"the checkpoint must be a file. Received: {path}, which {reason}")
    if os.path.getsize(path) > LIMIT:
        raise UserError(f"a checkpoint may have {LIMIT:,} bytes. {path}: {os.path.getsize(path):,}")
    if path.suffix in _TORCH_SUFFIXES:
        return _read_torch(path, key)
    if path.suffix != ".safetensors":
        known = ", ".join((".safetensors", *_TORCH_SUFFIXES))
        raise UserError(f"the checkpoint's name must end in one of {known}. Received: {path}")
    if key is not None:
        raise UserError("`key` is for files of torch.save; a safetensors file is one state_dict")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, array in found.items():
            if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
                raise ValueError(f"{name} is {array.dtype}, real numbers were expected")
        return {name: array.astype("float32") for name, array in found.items()}
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise UserError(f"{path} could not be read as safetensors: {error}") from None


def _read_torch(path: Path, key: str | None) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        error = missing("torch", f"reading {path.name}")
        raise UserError(
            f"{error}; or write the state_dict with safetensors.torch.save_file where it is installed"
        ) from None
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > LIMIT:
                    raise ValueError(f"more than {LIMIT:,} bytes unpacked")
                if damaged := archive.testzip():  # PyTorch does not look at the checksums
                    raise ValueError(f"{damaged} is damaged: its checksum does not match")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler met: KeyError, EOFError, ...
        text = (str(error).splitlines() or [""])[0][:120]
        raise UserError(
            f"{path} could not be read ({type(error).__name__}: {text}); expected a whole file of "
            "torch.save(net.state_dict()); pickled classes could run any code and are not loaded"
        ) from None
    found = dict(_state_dicts(content, torch.Tensor))
    if key is not None and key in found:
        found = {key: found[key]}
    if len(found) != 1 or (key is not None and key not in found):
        names = ", ".join(repr(name) for name in found) or "none"
        raise UserError(
            f"{path} must hold one state_dict, or `key` name one of them. Found: {names}"
        )
    (tensors,) = found.values()
    if 4 * sum(tensor.numel() for tensor in tensors.values()) > LIMIT:
        raise UserError(f"{path}: the tensors have more than {LIMIT:,} bytes")
    if wrong := [name for name, tensor in tensors.items() if tensor.is_complex()]:
        raise UserError(f"{path}: {wrong[0]} is complex, real numbers were expected")
    try:
        return {name: t.detach().to(torch.float32).numpy() for name, t in tensors.items()}
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise UserError(f"{path}: a tensor cannot be read ({str(error).splitlines()[0]})") from None


def _state_dicts(content: Any, tensor: Any, path: str = "") -> Iterator[tuple[str, dict]]:
    """The state_dicts in nested dicts: (dotted keys that lead there, tensors by name)."""
    if not isinstance(content, Mapping) or path.count(".") > 2:
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, tensor)}
    if any(name.endswith("weight") and value.ndim == 4 for name, value in tensors.items()):
        yield path, tensors
        return
    for name, value in content.items():
        yield from _state_dicts(value, tensor, f"{path}.{name}" if path else str(name))
