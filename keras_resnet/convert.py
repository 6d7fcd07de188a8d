"""A PyTorch checkpoint of a CIFAR ResNet becomes our net.

    python -m keras_resnet.convert resnet56.th --depth 56 --padding split --output resnet56.keras

CHECKPOINT is a state_dict: safetensors, or what `torch.save` wrote (.pt, .pth, .th, .ckpt, .tar),
alone or inside a larger checkpoint. Its layers are matched by shape and order (see matching.py).

Give the constants that the net was trained with: `--mean` and `--std`, in units of 0..1.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import cli, matching, runs
from keras_resnet.cli import UserError
from keras_resnet.models import BUILDERS, CIFAR10_MEAN, CIFAR10_STD, SHORTCUTS

PADDINGS = ("end", "split")
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
    if not path.is_file():
        raise UserError(f"the checkpoint must be a file. Received: {path}")
    if path.stat().st_size > LIMIT:
        raise UserError(f"a checkpoint may have {LIMIT:,} bytes. {path}: {path.stat().st_size:,}")
    if path.suffix in _TORCH_SUFFIXES:
        return _read_torch(path, key)
    if path.suffix != ".safetensors":
        known = ", ".join((".safetensors", *_TORCH_SUFFIXES))
        raise UserError(f"the checkpoint's name must end in one of {known}. Received: {path}")
    if key is not None:
        raise UserError("--key is for files of torch.save; a safetensors file is one state_dict")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name).astype("float32") for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} could not be read as safetensors: {error}") from None


def _read_torch(path: Path, key: str | None) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"reading {path.name} needs PyTorch, which is not installed here: pip install torch; "
            "or write the state_dict with safetensors.torch.save_file where it is installed"
        ) from None
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > LIMIT:
                    raise ValueError(f"more than {LIMIT:,} bytes unpacked")
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
            f"{path} must hold one state_dict, or --key name one of them. Found: {names}"
        )
    (tensors,) = found.values()
    if 4 * sum(tensor.numel() for tensor in tensors.values()) > LIMIT:
        raise UserError(f"{path}: the tensors have more than {LIMIT:,} bytes")
    try:
        return {name: t.detach().to(torch.float32).numpy() for name, t in tensors.items()}
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise UserError(f"{path}: a tensor cannot be read ({str(error).splitlines()[0]})") from None


def _state_dicts(content: Any, tensor: type, path: str = "") -> Iterator[tuple[str, dict]]:
    """The state_dicts in nested dicts: (dotted keys that lead there, tensors by name)."""
    if not isinstance(content, Mapping) or path.count(".") > 2:
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, tensor)}
    if any(name.endswith("weight") and value.ndim == 4 for name, value in tensors.items()):
        yield path, tensors
        return
    for name, value in content.items():
        yield from _state_dicts(value, tensor, f"{path}.{name}" if path else str(name))


def convert(
    tensors: Mapping[str, np.ndarray],
    depth: int,
    *,
    model: str = "resnet",
    shortcut: str = "zeropad",
    padding: str = "end",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> keras.Model:
    """Build our net with the weights, and the number of classes, of a PyTorch state_dict.

    Args:
        tensors: float arrays by PyTorch's names, e.g. from `read_checkpoint`.
        depth: 6n + 2.
        model: `"resnet"` or `"plain"`.
        shortcut: as for `resnet`.
        padding: where the zero channels of a zeropad shortcut are in the PyTorch net: `"end"`, or
            `"split"`, half before and half after the others. Ours are at the end: the channels of
            each stage are put into that order, which changes nothing else.
        mean, std: what the PyTorch net's input was normalised with, one number a channel in units
            of 0..1; default CIFAR-10's.

    Returns:
        float32 `keras.Model`: raw pixels 0..255 in, class probabilities out.

    Raises:
        UserError: if a tensor is missing, left over, of another shape or not finite (they are
            listed), if the order of the layers cannot be told, or if options do not fit together.
    """
    if padding not in PADDINGS:
        raise UserError(f"padding must be one of {', '.join(PADDINGS)}. Received: {padding!r}")
    if model == "plain" and shortcut != "zeropad":
        raise UserError(f"a plain net has no shortcut: leave it out. Received: shortcut={shortcut}")
    if padding == "split" and (model == "plain" or not shortcut.startswith("zeropad")):
        raise UserError(
            "padding=split is for resnets with a zeropad shortcut; the others pad nothing"
        )
    options: dict[str, Any] = {
        "mean": CIFAR10_MEAN if mean is None else [255 * value for value in mean],
        "std": CIFAR10_STD if std is None else [255 * value for value in std],
        "dtype": "float32",
    }
    if model == "resnet":
        options["shortcut"] = shortcut
    found, problems = matching.modules(tensors)
    dense = [module for module in found if module.kind == "dense"]
    options["num_classes"] = max(2, dense[0].shape[0]) if dense else 10
    try:
        net = BUILDERS[model](depth, **options)
    except ValueError as error:
        raise UserError(str(error)) from None
    convs = {layer.name: layer for layer in net.layers if isinstance(layer, keras.layers.Conv2D)}
    shapes = {name: _torch_shape(conv.kernel.shape) for name, conv in convs.items()}
    lines, hint = matching.differences(found, shapes, (options["num_classes"], 64))
    if problems or lines:
        kind = model if model == "plain" else shortcut
        text = _shorten([*lines, *problems])
        raise UserError(
            f"the checkpoint does not fit {net.name} ({kind}): {'; '.join([*text, hint])}"
        )
    order = _channel_order(padding)
    for name, (conv, bn) in matching.match(found, shapes, list(tensors)).items():
        out, into = _channels(name, order)
        kernel = conv.arrays["weight"].transpose(2, 3, 1, 0)
        convs[name].set_weights([kernel[:, :, into][..., out]])
        # The name that models.conv_bn gives.
        bn_name = name.replace("conv", "bn") if "conv" in name else f"{name}_bn"
        weights = [bn.arrays[leaf][out] for leaf in matching.LEAVES["bn"]]
        net.get_layer(bn_name).set_weights(weights)
    head = dense[0].arrays
    net.get_layer("head_dense").set_weights([head["weight"].T[order[3]], head["bias"]])
    return net


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a conv's weights in PyTorch: (out, in, height, width)."""
    height, width, channels, filters = shape
    return filters, channels, height, width


def _shorten(lines: list[str], most: int = 20) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more"]


def _channel_order(padding: str) -> dict[int, np.ndarray]:
    """For the output of each stage: the PyTorch net's channel that our channel k is.

    With "split", the shortcut into a stage of 32 puts the 16 channels it gets at 8..23.
    """
    order = {1: np.arange(16), 2: np.arange(32), 3: np.arange(64)}
    if padding == "split":
        for stage, filters in ((2, 32), (3, 64)):
            carried = order[stage - 1] + filters // 4
            order[stage] = np.concatenate([carried, np.setdiff1d(np.arange(filters), carried)])
    return order


def _channels(name: str, order: dict[int, np.ndarray]) -> tuple[Any, Any]:
    """(output, input) indices for a conv: what lies between a block's two convs keeps its order."""
    everything = slice(None)
    if name == "stem_conv":
        return everything, everything
    stage, block, layer = re.fullmatch(r"stage(\d)_block(\d+)_(\w+)", name).groups()
    entering = order[max(1, int(stage) - 1) if block == "1" else int(stage)]
    return (
        everything if layer == "conv1" else order[int(stage)],
        everything if layer == "conv2" else entering,
    )


# --- command --------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(
        prog="python -m keras_resnet.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rgb: dict[str, Any] = {"type": float, "nargs": 3, "metavar": ("R", "G", "B")}
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path)
    parser.add_argument("--depth", type=int, required=True, help="6n+2: 20, 32, 44, 56, 110, 1202")
    parser.add_argument("--output", type=Path, required=True, help="the .keras file to write")
    parser.add_argument("--model", choices=sorted(BUILDERS), default="resnet")
    parser.add_argument("--shortcut", choices=SHORTCUTS, default="zeropad")
    parser.add_argument(
        "--padding",
        choices=PADDINGS,
        default="end",
        help="where zeropad's new channels are: at the end, or split half before, half after "
        "(F.pad(..., planes//4, planes//4))",
    )
    parser.add_argument("--mean", **rgb, help="of the input, 0..1 (default: CIFAR-10's 0.4914 ...)")
    parser.add_argument("--std", **rgb, help="of the input, 0..1 (default: CIFAR-10's 0.2470 ...)")
    parser.add_argument("--key", help="which state_dict, if the file holds several")
    arguments = parser.parse_args(argv)
    if arguments.output.suffix != ".keras":
        raise UserError(f"--output must end in .keras. Received: {arguments.output}")
    for name, low in (("mean", 0.0), ("std", 1e-6)):
        values = getattr(arguments, name)
        if values and not all(low <= value <= 1 for value in values):
            raise UserError(
                f"--{name} must be in units of 0..1 (divide pixel units by 255). Received: {values}"
            )
    tensors = read_checkpoint(arguments.checkpoint, arguments.key)
    chosen = ("depth", "model", "shortcut", "padding", "mean", "std")
    net = convert(tensors, **{name: getattr(arguments, name) for name in chosen})
    with runs.atomic(arguments.output) as temporary:
        net.save(temporary)
    trainable = sum(math.prod(variable.shape) for variable in net.trainable_variables)
    print(
        f"{arguments.output}: {net.name}, {net.output_shape[-1]} classes, {trainable:,} trainable "
        f"parameters, from {len(tensors)} tensors of {arguments.checkpoint}\n"
        f"next: python -m keras_resnet.evaluate --model {arguments.output}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
