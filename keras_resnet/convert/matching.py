"""Match the conv, BN and dense layers of a PyTorch state_dict with those of our net, by shape and order.

Of PyTorch's names only the endings of `torch.nn` count (weight, bias, running_mean, running_var). The order
is that of the file; where the file is sorted by name, as safetensors are, that of the numbers in the names.
An order that is still ambiguous is an error, never a guess: most layers of a stage have the same shape, so a
wrong order would not be noticed.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from keras_resnet.errors import UserError

LEAVES = {
    "conv": ("weight",),
    "dense": ("weight", "bias"),
    "bn": ("weight", "bias", "running_mean", "running_var"),
}
_KINDS = {4: "conv", 2: "dense", 1: "bn"}  # by the dimensions of the weight
Shape = tuple[int, ...]


class Module(NamedTuple):
    """One conv, BN or dense layer of the checkpoint."""

    path: str
    kind: str
    arrays: dict[str, np.ndarray]  # by the endings in LEAVES

    @property
    def shape(self) -> Shape:
        return self.arrays["weight"].shape


Pair = tuple[Module, Module]  # a conv, and the BN that follows it


def group_by_module(tensors: Mapping[str, np.ndarray]) -> tuple[list[Module], list[str]]:
    """Group tensors by module, in the order given; also list the modules that fit no layer of ours.

    `num_batches_tracked` is ignored: it changes nothing where the momentum is given.
    """
    grouped: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, value in tensors.items():
        path, _, leaf = name.rpartition(".")
        if leaf != "num_batches_tracked":
            grouped[path][leaf] = value
    modules, problems = [], []
    for path, arrays in grouped.items():
        weight = arrays.get("weight", np.float32(0))
        kind = _KINDS.get(weight.ndim, "")
        vectors = {array.shape for array in arrays.values() if array is not weight}
        if {*arrays} != {*LEAVES.get(kind, ())} or vectors - {weight.shape[:1]}:
            found = ", ".join(f"{leaf} {array.shape}" for leaf, array in arrays.items())
            problems.append(
                f"{path} has {found}: not a conv without bias, BN or dense layer".lstrip()
            )
        elif not all(np.isfinite(a).all() for a in arrays.values()):
            problems.append(f"{path} has values that are not finite")
        elif kind == "bn" and arrays["running_var"].min() < 0:
            problems.append(f"{path} has negative variances")
        else:
            modules.append(Module(path, kind, arrays))
    return modules, problems


def read_options(convs: Sequence[Shape]) -> tuple[int, str]:
    """Depth and shortcut of a net with convs of these shapes (out, in, height, width).

    Every shortcut without weights is read as "zeropad", and so is a plain net. Raises UserError where the
    shapes are not of the CIFAR nets of He et al. 2015.
    """
    signs = []
    stem = next((shape for shape in convs if shape[1] == 3), (16, 3, 3, 3))
    if stem != (16, 3, 3, 3):
        signs.append(f"a stem of {stem[0]} filters of {stem[2]}x{stem[3]}, not 16 of 3x3")
    projections = sum(shape[2:] == (1, 1) for shape in convs)
    if 2 * projections > len(convs):
        signs.append("bottleneck blocks, not two 3x3 convs in each")
    if others := sorted({shape[0] for shape in convs} - {16, 32, 64}):
        signs.append(f"convs of {', '.join(map(str, others))} filters, not of 16, 32 and 64")
    n = convs.count((16, 16, 3, 3)) // 2
    if signs or not n:
        signs = signs or ["no two 3x3 convs from 16 to 16 filters"]
        raise UserError(f"the checkpoint is of another family of nets, with {'; '.join(signs)}")
    return 6 * n + 2, {3 * n: "projection-all", 2: "projection"}.get(projections, "zeropad")


def match(
    modules: Sequence[Module], shapes: Mapping[str, Shape], names: Sequence[str]
) -> dict[str, Pair]:
    """The checkpoint's conv and BN for each of our convs, by its name.

    `modules` are as many of each shape as our net has; `shapes` those of our convs in PyTorch's order of
    axes, in the net's order; `names` those of all tensors, in the file's order.
    """
    layers = [module for module in modules if module.kind != "dense"]
    is_sorted = list(names) == sorted(names)  # PyTorch's own order has weight before bias
    for pairs in ([] if is_sorted else pair_by_place(layers), pair_by_name(layers)):
        if found := assign(pairs, shapes):
            return found
    raise UserError(
        "the order of the layers cannot be decided, neither by the places of the tensors in the file nor "
        "by the numbers in their names. Save the state_dict with torch.save, in the net's own order "
        "(safetensors sorts by name), or rename the modules"
    )


def pair_by_place(layers: Sequence[Module]) -> list[Pair]:
    """Each conv with the BN behind it, in the file's order; nothing where they do not alternate."""
    pairs = list(zip(layers[::2], layers[1::2], strict=False))
    if [layer.kind for layer in layers] != ["conv", "bn"] * len(pairs):
        return []
    first, bn, second = [layer.path.rpartition(".")[0] for layer in layers[:3]]
    if first != bn == second:  # all else fits our nets
        raise UserError(
            f"a BN must follow the first conv, {layers[0].path}. Received: {layers[1].path}, which belongs "
            f"to {layers[2].path}: a pre-activation net (He et al. 2016), which this package does not have"
        )
    return pairs


def pair_by_name(layers: Sequence[Module]) -> list[Pair]:
    """Each conv with the BN of like name, in the order of the numbers in their names, the stem first.

    Nothing where words would have to be ordered: the names of all convs of a shape, and of their BNs, may
    differ in numbers alone.
    """
    alike: dict[str, dict[str, list[Module]]] = defaultdict(lambda: {"conv": [], "bn": []})
    for layer in sorted(layers, key=lambda layer: _numbers_padded(layer.path)):
        # Alike are a.conv1 and a.bn2, a.0 and a.1, convs.0 and norms.0, a.stem_conv and a.batch_norm.
        name = re.sub(r"[a-z_]*(conv|norm|bn)(2d)?", "", layer.path.lower()).rstrip("0123456789")
        alike[name][layer.kind].append(layer)
    if any(len(group["conv"]) != len(group["bn"]) for group in alike.values()):
        return []
    pairs = [p for group in alike.values() for p in zip(group["conv"], group["bn"], strict=True)]
    words = {(conv.shape, re.sub(r"\d+", "0", f"{conv.path} {bn.path}")) for conv, bn in pairs}
    if len(words) != len({conv.shape for conv, _ in pairs}):
        return []
    return sorted(pairs, key=lambda pair: (pair[0].shape[1] != 3, _numbers_padded(pair[0].path)))


def assign(pairs: Sequence[Pair], shapes: Mapping[str, Shape]) -> dict[str, Pair] | None:
    """Give our convs the pairs in turn; None where the shapes, in this order, are not those of our net."""
    found: dict[str, Pair] = {}
    for size in (3, 1):  # apart: a projection may stand before or behind the convs of its block
        ours = [name for name, shape in shapes.items() if shape[2] == size]
        theirs = [pair for pair in pairs if pair[0].shape[2] == size]
        expected = [(shapes[name], shapes[name][:1]) for name in ours]
        if [(conv.shape, bn.shape) for conv, bn in theirs] != expected:
            return None
        found |= zip(ours, theirs, strict=True)
    return found


def _numbers_padded(path: str) -> str:
    """A sort key with numbers as numbers: layer1.2 before layer1.10."""
    return re.sub(r"\d+", lambda number: number[0].zfill(9), path)
