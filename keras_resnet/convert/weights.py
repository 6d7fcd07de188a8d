"""Build our net from a PyTorch state_dict."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_resnet.console import printable
from keras_resnet.convert import matching
from keras_resnet.data.constants import CIFAR10_MEAN, CIFAR10_STD
from keras_resnet.errors import UserError
from keras_resnet.nets.resnet import build


def convert(
    tensors: Mapping[str, np.ndarray],
    depth: int | None = None,
    *,
    model: str = "resnet",
    shortcut: str | None = None,
    padding: str = "end",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
) -> keras.Model:
    """Build our net, in float32, with the weights and the number of classes of a PyTorch state_dict.

    `tensors` are what `read_checkpoint` reads. A `depth` or `shortcut` of None is read from their shapes,
    where no projection means zeropad. With `padding="split"` the PyTorch net has half of a shortcut's zero
    channels before the others; ours are at the end: the channels of each stage are reordered, which changes
    no output. `mean` and `std` are in units of 0..1; default CIFAR-10's. Sides of `input_shape` that are None
    are free. Raises UserError where tensors do not fit (all are listed), their order cannot be decided, or
    options do not go together.
    """
    for name, values, low in (("mean", mean, 0.0), ("std", std, 1e-6)):
        if values is not None and not all(low <= value <= 1 for value in values):
            raise UserError(
                f"`{name}` must be in units of 0..1 (divide pixel units by 255). Received: {values}"
            )
    modules, problems = matching.group_by_module(tensors)
    kernels = [a.shape for name, a in tensors.items() if name.endswith("weight") and a.ndim == 4]
    found = matching.read_options(kernels)
    for name, value, read in (("depth", depth, found[0]), ("shortcut", shortcut, found[1])):
        if value is not None and str(value).removesuffix("-maxpool") != str(read):
            raise UserError(
                f"`{name}` must be {read}, by the checkpoint's shapes. Received: {value}"
            )
    depth, shortcut = found[0], shortcut or found[1]
    if padding == "split" and (model == "plain" or not shortcut.startswith("zeropad")):
        raise UserError(
            "padding=split is for resnets with a zeropad shortcut; the others pad nothing"
        )
    dense = [module for module in modules if module.kind == "dense"]
    net = build(
        model,
        depth,
        shortcut=shortcut,
        num_classes=dense[0].shape[0] if dense else 10,
        mean=CIFAR10_MEAN if mean is None else [255 * value for value in mean],
        std=CIFAR10_STD if std is None else [255 * value for value in std],
        input_shape=input_shape,
        dtype="float32",
    )
    layers = layers_of(net, channel_order(padding))
    axes = (3, 2, 0, 1)  # PyTorch's order: (out, in, height, width)
    shapes = {c.name: tuple(c.kernel.shape[k] for k in axes) for c, *_ in layers}
    wanted = [("conv", shape) for shape in shapes.values()]
    wanted += [("bn", shape[:1]) for _, shape in wanted] + [("dense", (net.output_shape[-1], 64))]
    for kind, shape in dict.fromkeys([*wanted, *((m.kind, m.shape) for m in modules)]):
        paths = [m.path for m in modules if (m.kind, m.shape) == (kind, shape)]
        if (count := wanted.count((kind, shape))) != len(paths):
            received = f"{len(paths)} received ({', '.join(paths) or 'none'})"
            problems.append(f"{kind} weights {shape}: {count} expected, {received}")
    if problems:
        text = f"the checkpoint does not fit {net.name}: {'; '.join(problems)[:2_000]}"
        raise UserError(printable(text))
    theirs = matching.match(modules, shapes, list(tensors))
    for conv, bn, out, into in layers:
        their_conv, their_bn = theirs[conv.name]
        conv.set_weights([their_conv.arrays["weight"][out][:, into].transpose(2, 3, 1, 0)])
        bn.set_weights([their_bn.arrays[leaf][out] for leaf in matching.LEAVES["bn"]])
    head, last = dense[0].arrays, channel_order(padding)[3]
    net.get_layer("head_dense").set_weights([head["weight"].T[last], head["bias"]])
    return net


def channel_order(padding: str) -> dict[int, np.ndarray]:
    """For the output of each stage, which channel of the PyTorch net is our channel k.

    With "split", the shortcut into a stage of 32 puts the 16 channels it gets at 8..23.
    """
    order = {1: np.arange(16), 2: np.arange(32), 3: np.arange(64)}
    if padding == "split":
        for stage, filters in ((2, 32), (3, 64)):
            carried = order[stage - 1] + filters // 4
            order[stage] = np.concatenate([carried, np.setdiff1d(np.arange(filters), carried)])
    return order


def layers_of(net: keras.Model, order: Mapping[int, np.ndarray]) -> list[tuple[Any, Any, Any, Any]]:
    """Each conv of our net with its BN, and the indices of its output and its input channels by `order`."""
    by_name, found = {layer.name: layer for layer in net.layers}, []
    for name, layer in by_name.items():
        # The name that nets.resnet.conv_bn gives.
        bn = by_name.get(name.replace("conv", "bn") if "conv" in name else f"{name}_bn")
        if not isinstance(layer, keras.layers.Conv2D) or bn is None:
            continue  # a zeropad shortcut in its stock form is a conv without a BN
        out: Any = slice(None)
        into: Any = slice(None)
        if name != "stem_conv":
            stage, block, part = name.split("_")
            here = int(stage.removeprefix("stage"))
            # The channels between a block's two convs keep their order.
            if part != "conv1":
                out = order[here]
            if part != "conv2":
                into = order[here - 1 if block == "block1" and here > 1 else here]
        found.append((layer, bn, out, into))
    return found
