"""Which conv, BN and dense layer of a PyTorch state_dict is which layer of our net.

By shape and order. Of PyTorch's names only `torch.nn`'s own endings count (weight, bias,
running_mean, running_var). The order is the dict's; where that is the alphabet's (safetensors
always), it is the names' with numbers counted as numbers. What stays open is an error, never a
guess: most layers of a stage have the same shape, so that a wrong order would not be noticed.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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

    @property
    def parent(self) -> str:
        return self.path.rpartition(".")[0]


def group_by_module(tensors: Mapping[str, np.ndarray]) -> tuple[list[Module], list[str]]:
    """Group tensors by module, in the order given; also list what no module can be made of.

    `num_batches_tracked` is ignored: it changes nothing where the momentum is given.
    """
    grouped: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, value in tensors.items():
        path, _, leaf = name.rpartition(".")
        if leaf != "num_batches_tracked":
            grouped[path][leaf] = value
    modules, problems = [], []
    for path, arrays in grouped.items():
        first = arrays.get("weight", arrays.get("running_mean", np.float32(0)))
        kind = _KINDS.get(first.ndim, "")
        leaves = LEAVES.get(kind, ())
        problems += [f"{path}.{leaf} is missing" for leaf in leaves if leaf not in arrays]
        for leaf, value in arrays.items():
            name = f"{path}.{leaf} {value.shape}".lstrip(".")
            if leaf not in leaves:
                problems.append(f"{name} is left over")
            elif value is not first and value.shape != first.shape[:1]:
                problems.append(f"{name} should have the shape {first.shape[:1]}")
            elif not np.isfinite(value).all():
                problems.append(f"{name} has values that are not finite")
            elif leaf == "running_var" and (value < 0).any():
                problems.append(f"{name} has negative values")
        if kind and "weight" in arrays:
            modules.append(Module(path, kind, arrays))
    return modules, problems


def signs_of_another_family(convs: Sequence[Shape]) -> list[str]:
    """What a net has that the CIFAR nets of He et al. 2015 lack, by the shapes of its convs."""
    signs = []
    stem = next((shape for shape in convs if shape[1] == 3), (16, 3, 3, 3))
    if stem != (16, 3, 3, 3):
        signs.append(f"a stem of {stem[0]} filters of {stem[2]}x{stem[3]}, not 16 of 3x3")
    if 2 * sum(shape[2:] == (1, 1) for shape in convs) > len(convs):
        signs.append("bottleneck blocks, not two 3x3 convs in each")
    if others := sorted({shape[0] for shape in convs} - {16, 32, 64}):
        signs.append(f"convs of {', '.join(map(str, others))} filters, not of 16, 32 and 64")
    return signs


def differences(
    modules: Sequence[Module], shapes: Mapping[str, Shape], dense: Shape
) -> tuple[list[str], dict[str, object]]:
    """What the checkpoint has more or fewer of than the net, one line per shape.

    Args:
        modules: of the checkpoint.
        shapes: of our convs in PyTorch's order of axes, by layer, in the net's order.
        dense: shape of our dense layer's weights, likewise.

    Returns:
        The lines; and the `depth` and `shortcut` that the checkpoint's shapes speak for.
    """
    convs = list(shapes.values())
    wanted = [("conv", s) for s in convs] + [("bn", s[:1]) for s in convs] + [("dense", dense)]
    paths = defaultdict(list)
    for module in modules:
        paths[module.kind, module.shape].append(module.path)
    lines = []
    for kind, shape in dict.fromkeys([*wanted, *paths]):
        expected, names = wanted.count((kind, shape)), paths[kind, shape]
        if len(names) != expected:
            listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") or "none"
            lines.append(
                f"{kind} weights {shape}: {expected} expected, {len(names)} received ({listed})"
            )
    given = _options(convs)
    meant = _options([module.shape for module in modules if module.kind == "conv"])
    return lines, {name: value for name, value in meant.items() if value != given[name]}


def _options(convs: Sequence[Shape]) -> dict[str, object]:
    """`depth` and `shortcut` of a net with convs of these shapes, as far as they decide it."""
    n = convs.count((16, 16, 3, 3)) // 2
    projections = sum(shape[2:] == (1, 1) for shape in convs)
    shortcuts = {3 * n: "projection-all", 2: "projection", 0: "zeropad"}
    options = {"depth": 6 * n + 2, "shortcut": shortcuts.get(projections)}
    return {name: value for name, value in options.items() if n and value}


class _Unclear(Exception):
    """Why one way to order the layers, or to pair them, does not work."""


def match(
    modules: Sequence[Module], shapes: Mapping[str, Shape], names: Sequence[str]
) -> dict[str, tuple[Module, Module]]:
    """(conv, BN) for each of our convs, by layer. Call it where there are no `differences`.

    Args:
        modules, shapes: as for `differences`.
        names: of all tensors, in the checkpoint's order.

    Raises:
        UserError: where the order cannot be decided.
    """
    try:
        if list(names) == sorted(names):  # PyTorch's own never is: weight comes before bias
            raise _Unclear("they are sorted by name")
        _refuse_pre_activation(modules)
        return _assign(modules, shapes, by_name=False)
    except _Unclear as error:
        by_position = error
    try:
        by_name = sorted(modules, key=lambda module: _natural(module.path))
        return _assign(by_name, shapes, by_name=True)
    except _Unclear as error:
        raise UserError(
            "the order of the layers cannot be decided: not by the places of the tensors in the file "
            f"({by_position}), not by the numbers in their names ({error}). Save the state_dict with "
            "torch.save, in the net's own order (safetensors sorts by name), or rename the modules"
        ) from None


def _refuse_pre_activation(modules: Sequence[Module]) -> None:
    """Refuse the nets of He et al. 2016, whose blocks begin with a BN: all else is as in ours."""
    stem, second, third = modules[:3]
    if (second.kind, third.kind) == ("bn", "conv") and second.parent == third.parent != stem.parent:
        raise UserError(
            f"a BN must follow the first conv, {stem.path}. Received: {second.path}, which belongs to "
            f"{third.path}: a pre-activation net (He et al. 2016), which this package does not have"
        )


def _assign(
    modules: Sequence[Module], shapes: Mapping[str, Shape], by_name: bool
) -> dict[str, tuple[Module, Module]]:
    """Give our layers the convs of their shapes, in this order, if it can be the net's order."""
    free = defaultdict(list)
    for name, shape in shapes.items():
        free[shape].append(name)
    convs = {free[m.shape].pop(0): m for m in modules if m.kind == "conv"}

    def main_path(names: Iterable[str]) -> list[str]:
        """Without what may stand anywhere: projections, and by name the stem."""
        return [n for n in names if shapes[n][2:] == (3, 3) and not (by_name and n == "stem_conv")]

    if main_path(convs) != main_path(shapes):
        raise _Unclear("so ordered, the shapes are not the net's")
    words: dict[Shape, tuple[str, str]] = {}
    for conv in convs.values() if by_name else ():
        text, path = words.setdefault(conv.shape, (re.sub(r"\d+", "0", conv.path), conv.path))
        if text != re.sub(r"\d+", "0", conv.path):  # words have no order
            raise _Unclear(f"{path} and {conv.path} differ by more than numbers")
    bns = _bns_of_convs([module for module in modules if module.kind != "dense"], by_name)
    for conv in convs.values():
        if conv.path not in bns or bns[conv.path].shape != conv.shape[:1]:
            raise _Unclear(f"which BN follows {conv.path} is open")
    return {name: (conv, bns[conv.path]) for name, conv in convs.items()}


def _bns_of_convs(modules: Sequence[Module], by_name: bool) -> dict[str, Module]:
    """The BN of each conv, by the conv's path, as far as places or names say it."""
    if not by_name and _alternate(modules):
        return {conv.path: bn for conv, bn in zip(modules[::2], modules[1::2], strict=True)}
    pairs: dict[str, Module] = {}
    left = list(modules)
    for key in (_without_kind, _parent_and_number):
        groups: dict[object, list[Module]] = defaultdict(list)
        for module in left:
            groups[key(module)].append(module)
        for group in groups.values():
            if sorted(module.kind for module in group) == ["bn", "conv"]:
                bn, conv = sorted(group, key=lambda module: module.kind)
                pairs[conv.path] = bn
                left = [m for m in left if m is not conv and m is not bn]
    open_paths = {module.path for module in left}
    for first, second in itertools.pairwise(modules):  # downsample.0 and downsample.1
        is_open = {first.path, second.path} <= open_paths
        if is_open and first.parent == second.parent and _alternate((first, second)):
            pairs[first.path] = second
    return pairs


def _without_kind(module: Module) -> str:
    """Alike for conv1 and bn1, a.conv and a.norm, convs.0 and norms.0."""
    return re.sub(r"batch_?norm|conv|norm|bn|2d|[_-]", "", module.path.lower())


def _parent_and_number(module: Module) -> tuple[str, str]:
    """Alike for stem.compressible_conv and stem.normalize, a.filter1 and a.normalize1."""
    return module.parent, module.path[len(module.path.rstrip("0123456789")) :]


def _alternate(modules: Sequence[Module]) -> bool:
    """Whether they are conv, BN, conv, BN, ..."""
    return [module.kind for module in modules] == ["conv", "bn"] * (len(modules) // 2)


def _natural(path: str) -> list[tuple[int, str]]:
    """A sort key with numbers as numbers: layer1.2 before layer1.10."""
    tokens = re.findall(r"\d+|\D+", path)
    return [(int(token), "") if token.isdecimal() else (-1, token) for token in tokens]
