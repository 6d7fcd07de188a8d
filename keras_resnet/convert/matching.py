"""Match the conv, BN and dense layers of a PyTorch state_dict with those of our net, by shape and order.

Of PyTorch's names only the endings of `torch.nn` count (weight, bias, running_mean, running_var). The order
is that of the dict; if the dict is sorted by name, as safetensors always are, the names are sorted with
numbers as numbers. An order that is still ambiguous is an error, never a guess: most layers of a stage have
the same shape, so a wrong order would not be noticed.
"""

from __future__ import annotations

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
        vectors = [array.shape for array in arrays.values() if array is not weight]
        if set(arrays) != {*LEAVES.get(kind, ())} or {*vectors} - {weight.shape[:1]}:
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

    Every shortcut without weights is read as "zeropad", and so is a plain net.

    Raises:
        UserError: where the shapes are not of the CIFAR nets of He et al. 2015.
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
) -> dict[str, tuple[Module, Module]]:
    """Find the checkpoint's (conv, BN) for each of our convs, by its name. Shapes must be the net's.

    `shapes` are those of our convs in PyTorch's order of axes, in the net's order; `names` those of all
    tensors, in the checkpoint's order. Raises UserError where the order cannot be decided.
    """
    layers = [module for module in modules if module.kind != "dense"]
    convs, bns = layers[::2], layers[1::2]
    alternate = [module.kind for module in layers] == ["conv", "bn"] * len(convs)
    # PyTorch's dicts are not sorted by name: weight is before bias.
    if list(names) != sorted(names) and alternate:
        parents = [module.path.rpartition(".")[0] for module in layers[:3]]
        if parents[0] != parents[1] == parents[2]:  # all else fits our nets
            raise UserError(
                f"a BN must follow the first conv, {convs[0].path}. Received: {bns[0].path}, which belongs "
                f"to {convs[1].path}: a pre-activation net (He et al. 2016), which this package does not have"
            )
        pairs = {conv.path: bn for conv, bn in zip(convs, bns, strict=True)}
        if found := _assign(convs, pairs, shapes):
            return found
    layers = sorted(layers, key=lambda layer: _natural(layer.path))
    # By name the stem may stand anywhere.
    convs = sorted((m for m in layers if m.kind == "conv"), key=lambda conv: conv.shape[1] != 3)
    # All convs of a shape must be named alike.
    alike = len({(m.shape, _words(m)) for m in convs}) == len({m.shape for m in convs})
    if alike and (found := _assign(convs, _pairs_by_name(layers), shapes)):
        return found
    raise UserError(
        "the order of the layers cannot be decided, neither by the places of the tensors in the file nor "
        "by the numbers in their names. Save the state_dict with torch.save, in the net's own order "
        "(safetensors sorts by name), or rename the modules"
    )


def _assign(
    convs: Sequence[Module], pairs: Mapping[str, Module], shapes: Mapping[str, Shape]
) -> dict[str, tuple[Module, Module]] | None:
    """Assign the convs, in this order, to our layers by shape; None if it cannot be the net's order."""
    free = defaultdict(list)
    for name, shape in shapes.items():
        free[shape].append(name)
    ours = {free[conv.shape].pop(0): conv for conv in convs}
    # A projection may stand anywhere.
    main_path = [[name for name in side if shapes[name][2:] == (3, 3)] for side in (ours, shapes)]
    followed = [conv.path in pairs and pairs[conv.path].shape == conv.shape[:1] for conv in convs]
    if main_path[0] != main_path[1] or not all(followed):
        return None
    return {name: (conv, pairs[conv.path]) for name, conv in ours.items()}


def _pairs_by_name(modules: Sequence[Module]) -> dict[str, Module]:
    """The BN of each conv, by the conv's path: the k-th BN of a group of like names is of its k-th conv."""
    groups: dict[str, tuple[list[Module], list[Module]]] = defaultdict(lambda: ([], []))
    for module in modules:
        # Alike for a.conv1 and a.bn2, a.0 and a.1, convs.0 and norms.0, a.stem_conv and a.batch_norm.
        name = re.sub(r"[a-z_]*(conv|norm|bn)(2d)?", "", module.path.lower()).rstrip("0123456789")
        groups[name][module.kind == "bn"].append(module)
    pairs: dict[str, Module] = {}
    for convs, bns in groups.values():
        if len(convs) == len(bns) and len({*map(_words, convs)}) == len({*map(_words, bns)}) == 1:
            pairs |= {conv.path: bn for conv, bn in zip(convs, bns, strict=True)}
    return pairs


def _words(module: Module) -> str:
    """A path without its numbers: words have no order."""
    return re.sub(r"\d+", "0", module.path)


def _natural(path: str) -> list[tuple[int, str]]:
    """A sort key with numbers as numbers: layer1.2 before layer1.10."""
    tokens = re.findall(r"\d+|\D+", path)
    return [(int(token), "") if token.isdecimal() else (-1, token) for token in tokens]
