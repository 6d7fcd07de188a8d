"""Which conv, BN and linear layer of a PyTorch state_dict is which layer of our net.

By shape and order. Of PyTorch's names only `torch.nn`'s own endings count (weight, bias,
running_mean, running_var). The order is the dict's; where that is the alphabet's (safetensors
always), it is the names' with numbers counted as numbers. What stays open is an error, never a
guess: most layers of a stage have the same shape, so that a wrong order would not be noticed.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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


def modules(tensors: Mapping[str, np.ndarray]) -> tuple[list[Module], list[str]]:
    """Group tensors by module, in the order given; also what is missing, left over or not finite.

    `num_batches_tracked` is ignored: it changes nothing where the momentum is given.
    """
    grouped: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, value in tensors.items():
        path, _, leaf = name.rpartition(".")
        if leaf != "num_batches_tracked":
            grouped[path][leaf] = value
    found, problems = [], []
    for path, arrays in grouped.items():
        first = arrays.get("weight", arrays.get("running_mean", np.float32(0)))
        kind = _KINDS.get(first.ndim, "")
        for leaf in LEAVES.get(kind, ()):
            if leaf not in arrays:
                problems.append(f"{path}.{leaf} is missing")
        for leaf, value in arrays.items():
            name = f"{path}.{leaf} {value.shape}"
            if leaf not in LEAVES.get(kind, ()):
                problems.append(f"{name} is left over")
            elif value is not first and value.shape != first.shape[:1]:
                problems.append(f"{name} should have the shape {first.shape[:1]}")
            elif not np.isfinite(value).all():
                problems.append(f"{name} has values that are not finite")
            elif leaf == "running_var" and (value < 0).any():
                problems.append(f"{name} has negative values")
        if kind and "weight" in arrays:
            found.append(Module(path, kind, arrays))
    return found, problems


def differences(
    found: Sequence[Module], shapes: Mapping[str, Shape], dense: Shape, plain: bool
) -> tuple[list[str], str]:
    """What the checkpoint has more or fewer of than the net, one line per shape, and a hint.

    Args:
        found: of the checkpoint.
        shapes: of our convs in PyTorch's order of axes, by layer, in the net's order.
        dense: shape of our dense layer's weights, likewise.
        plain: whether ours is a plain net.
    """
    convs = list(shapes.values())
    wanted = [("conv", s) for s in convs] + [("bn", s[:1]) for s in convs] + [("dense", dense)]
    paths = defaultdict(list)
    for module in found:
        paths[module.kind, module.shape].append(module.path)
    lines = []
    for kind, shape in dict.fromkeys([*wanted, *paths]):
        expected, names = wanted.count((kind, shape)), paths[kind, shape]
        if len(names) != expected:
            listed = (
                f" ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''})" if names else ""
            )
            lines.append(f"{kind} weights {shape}: {expected} expected, {len(names)} found{listed}")
    return lines, _hint([m.shape for m in found if m.kind == "conv"], convs, plain)


def _hint(found: list[Shape], wanted: list[Shape], plain: bool) -> str:
    """The flags that the checkpoint's shapes speak for, where they are not those given."""

    def n(shapes: list[Shape]) -> float:
        return shapes.count((16, 16, 3, 3)) / 2

    def projections(shapes: list[Shape]) -> int:
        return sum(shape[2:] == (1, 1) for shape in shapes)

    hints = []
    if n(found) != n(wanted) and n(found) in range(1, 201):
        hints.append(f"`depth` {6 * n(found) + 2:.0f}")
    names = {0: "zeropad", 2: "projection", 3 * n(found): "projection-all"}
    if projections(found) != projections(wanted) and projections(found) in names:
        if plain:
            hints.append("`model` resnet")
        hints.append(f"`shortcut` {names[projections(found)]}")
    return f"by its shapes it would be {' '.join(hints)}" if hints else ""


def match(
    found: Sequence[Module], shapes: Mapping[str, Shape], names: Sequence[str]
) -> dict[str, tuple[Module, Module]]:
    """(conv, BN) for each of our convs, by layer. Call it where there are no `differences`.

    Args:
        found, shapes: as for `differences`.
        names: of all tensors, in the checkpoint's order.

    Raises:
        UserError: if the order cannot be told.
    """
    by_position: dict | str = "they are sorted by name"
    if list(names) != sorted(names):  # PyTorch's own order never is: weight comes before bias
        _check_bn_after_conv(found)
        by_position = _assign(found, shapes, positions=True)
        if isinstance(by_position, dict):
            return by_position
    by_name = _assign(sorted(found, key=lambda m: _natural(m.path)), shapes, positions=False)
    if isinstance(by_name, dict):
        return by_name
    raise UserError(
        "the order of the layers cannot be told: not by the places of the tensors in the file "
        f"({by_position}), not by the numbers in their names ({by_name}). Save the state_dict with "
        "torch.save, in the net's own order (safetensors sorts by name), or rename the modules"
    )


def _check_bn_after_conv(found: Sequence[Module]) -> None:
    """Refuse the nets of He et al. 2016, whose blocks begin with a BN: shapes and numbers are the same."""
    stem, *others = found
    if [m.kind for m in others[:2]] == ["bn", "conv"]:
        bn, conv = others[:2]
        if bn.parent == conv.parent != stem.parent:
            raise UserError(
                f"a BN must follow the first conv, {stem.path}; the next one, {bn.path}, belongs to "
                f"{conv.path} after it: a pre-activation net (He et al. 2016), which is none of ours"
            )


def _assign(
    found: Sequence[Module], shapes: Mapping[str, Shape], positions: bool
) -> dict[str, tuple[Module, Module]] | str:
    """Deal the convs out to our layers in this order, or say why it cannot be the net's order."""
    queues = defaultdict(list)
    for name, shape in shapes.items():
        queues[shape].append(name)
    convs = [m for m in found if m.kind == "conv"]
    dealt = {queues[conv.shape].pop(0): conv for conv in convs}
    # Projections have no fixed place in their block; by name, the stem may come anywhere.
    spine = [name for name in dealt if shapes[name][2:] != (1, 1)]
    if not positions:
        spine.sort(key="stem_conv".__ne__)
    stages = [name.partition("_")[0] for name in dealt if name != "stem_conv"]
    if spine != [name for name in shapes if shapes[name][2:] != (1, 1)] or stages != sorted(stages):
        return "so ordered, the shapes are not the net's"
    if not positions:
        for shape in set(shapes.values()):
            paths = [conv.path for conv in convs if conv.shape == shape]
            for first, second in itertools.pairwise(paths):
                if not _ordered(first, second):
                    return f"{first} or {second} could be the earlier"
    partners = _pair([m for m in found if m.kind != "dense"], positions)
    for conv in convs:
        bn = partners.get(conv.path)
        if bn is None or bn.shape != conv.shape[:1]:
            return f"which BN follows {conv.path} is open"
    return {name: (conv, partners[conv.path]) for name, conv in dealt.items()}


def _pair(found: Sequence[Module], positions: bool) -> dict[str, Module]:
    """The BN of each conv, by the conv's path, as far as places or names say it."""
    if pairs := _turns(found):
        return pairs

    def rest(kind: str) -> list[Module]:
        taken = {*pairs, *(bn.path for bn in pairs.values())}
        return [m for m in found if m.kind == kind and m.path not in taken]

    def pair_by(key: Callable[[Module], Any]) -> None:
        groups: dict[Any, list[Module]] = defaultdict(list)
        for module in rest("conv") + rest("bn"):
            groups[key(module)].append(module)
        for group in groups.values():
            if [m.kind for m in group] == ["conv", "bn"]:
                pairs[group[0].path] = group[1]

    # conv1 and bn1, a.conv and a.norm, convs.0 and norms.0: the same but for what they are.
    pair_by(lambda m: re.sub(r"batch_?norm|conv|norm|bn|2d|[_-]", "", m.path.lower()))
    pair_by(lambda m: (m.parent, m.path[len(m.path.rstrip("0123456789")) :]))
    # downsample.0 and downsample.1: what is left under one parent stands together and takes turns.
    left = {m.path for m in rest("conv") + rest("bn")}
    for parent, run in itertools.groupby(found, key=lambda m: m.parent if m.path in left else None):
        if parent is not None:
            pairs |= _turns(list(run))
    if positions and rest("conv"):
        # conv1, conv2, bn1, bn2 under other names: the k-th goes with the k-th, if names agree.
        kth = zip(*([m for m in found if m.kind == kind] for kind in ("conv", "bn")), strict=True)
        by_place = {conv.path: bn for conv, bn in kth}
        if all(by_place[path].path == bn.path for path, bn in pairs.items()):
            return by_place
    return pairs


def _turns(found: Sequence[Module]) -> dict[str, Module]:
    """The pairs of conv, BN, conv, BN, ...; none where they do not take turns."""
    kinds = [module.kind for module in found]
    if kinds != ["conv", "bn"] * (len(kinds) // 2):
        return {}
    return {conv.path: bn for conv, bn in zip(found[::2], found[1::2], strict=True)}


def _tokens(path: str) -> list[str]:
    return re.findall(r"\d+|[A-Za-z]+|[^\dA-Za-z]+", path)


def _natural(path: str) -> list[tuple[int, int, str]]:
    """A sort key with numbers as numbers: layer1.2 before layer1.10."""
    return [(0, int(t), "") if t.isdecimal() else (1, 0, t) for t in _tokens(path)]


def _ordered(first: str, second: str) -> bool:
    """Whether names tell the order: by a number, one letter, or an addition ("conv", "conv2").

    "blocks.one" and "blocks.three" do not: the alphabet's order is a guess there.
    """
    for a, b in zip(_tokens(first), _tokens(second), strict=False):
        if a != b:
            return (a.isdecimal() and b.isdecimal()) or (
                len(a) == len(b) == 1 and (a + b).isalpha()
            )
    return True
