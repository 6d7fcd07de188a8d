"""`resnet` and `plain`, with random or trained weights: `keras_resnet.resnet(20, weights="cifar10")`."""

import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.inference import zoo
from keras_resnet.inference.open import load_keras
from keras_resnet.nets.describe import describe, normalization_of
from keras_resnet.nets.resnet import build


def resnet(
    depth: int = 20,
    *,
    weights: str | os.PathLike[str] | None = None,
    include_top: bool = True,
    shortcut: str = "zeropad",
    num_classes: int | None = None,
    input_shape: tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    dtype: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """A residual network of He et al. 2015, section 4.2: its layers can be trained, frozen and changed.

    Args:
        depth: number of weighted layers on the longest path, 6n + 2.
        weights: None for random ones; `"cifar10"` for the trained ones that come with the package, for
            the depths that `keras_resnet.zoo.list()` has; or the name of a trained net, a `.keras` file or a
            run folder, whose net must have the same depth and shortcut.
        include_top: False for the features `(N, 64)` before the dense layer.
        shortcut: what joins blocks of different shape: `"zeropad"` (the paper's option A),
            `"projection"` (option B: 1x1 conv + BN), `"projection-all"` (option C: on every block),
            `"zeropad-maxpool"` (2x2 maxima instead of every second pixel).
        num_classes: 2 or more; default: those of the weights, else 10. Where the weights have another
            number of classes, the dense layer is new, and a line says so.
        input_shape: (height, width, channels) of the images; default: that of the weights, else
            (32, 32, 3).
        mean, std: one number per channel in pixel units: `(pixels - mean) / std` is what the net sees.
            Default: those of the weights, else CIFAR-10's.
        seed: of the initial weights; the same seed gives the same weights.
        dtype: Keras dtype policy of the layers, e.g. `"mixed_bfloat16"`; default Keras's own.
            Normalisation, the dense layer and the softmax stay float32.
        name: of the model; default `"resnet<depth>"`.

    Returns:
        A model from RGB pixels 0..255 `(N, height, width, channels)`, uint8 or float32, to class
        probabilities `(N, num_classes)`, float32.

    Raises:
        ValueError: for a depth that is not 6n + 2 (the nearest are named), an unknown shortcut, constants or
            a size that do not fit, or weights of another net (what differs is named).
        UserError: if the file of the weights is missing, damaged or not a net of this package.
    """
    return _build(
        "resnet", depth, weights, shortcut, include_top, num_classes=num_classes,
        input_shape=input_shape, mean=mean, std=std, seed=seed, dtype=dtype, name=name,
    )  # fmt: skip


def plain(depth: int = 20, **options: Any) -> keras.Model:
    """The plain counterpart: `resnet` without shortcuts. All else is the same."""
    return _build("plain", depth, shortcut=None, **options)


def load_trained(
    weights: str | os.PathLike[str],
    num_classes: int | None = None,
    *,
    new_head: bool = False,
    input_shape: tuple[int, int, int] | None = None,
    **options: Any,
) -> keras.Model:
    """A trained net of this package, for further training: its depth, shortcut, mean and std are kept.

    The arguments are those of `resnet`. The dense layer is replaced, which a line says, where the number of
    classes is another, and with `new_head` in any case: the classes are others, though as many.
    """
    path = zoo.resolve(weights)
    source = load_keras(path)
    facts, normalization = describe(source), normalization_of(source)
    if facts["model"] is None or normalization is None:
        raise UserError(
            f"weights must be those of a resnet or plain net of this package. Received: {path}, {source.name}"
        )
    num_classes = facts["num_classes"] if num_classes is None else num_classes
    heads = [layer.units for layer in source.layers if layer.name == "head_dense"]
    new_head = new_head or heads != [num_classes]
    net = build(
        facts["model"],
        facts["depth"],
        shortcut=facts["shortcut"] or "zeropad",
        num_classes=num_classes,
        input_shape=facts["input_shape"] if input_shape is None else input_shape,
        mean=normalization[0].tolist(),
        std=normalization[1].tolist(),
        **options,
    )
    for layer in net.layers:
        if layer.weights and not (new_head and layer.name == "head_dense"):
            layer.set_weights(source.get_layer(layer.name).get_weights())
    if new_head:
        console.print_line(
            f"took {net.name}, with its mean and std, from {weights}; its dense layer is new, "
            f"for {num_classes} classes"
        )
    return net


def _build(
    model: str,
    depth: int = 20,
    weights: str | os.PathLike[str] | None = None,
    shortcut: str | None = None,
    include_top: bool = True,
    **options: Any,
) -> keras.Model:
    options = {key: value for key, value in options.items() if value is not None}
    if weights is None:
        net = build(model, depth, shortcut=shortcut or "zeropad", **options)
    elif "mean" in options or "std" in options:
        raise ValueError("mean and std are those of the weights: leave them out")
    else:
        if weights == "cifar10":
            names, asked = [net.name for net in zoo.entries()], f"{model}{depth}"
            if asked not in names:
                raise UserError(
                    f"weights='cifar10' must be those of a trained net ({', '.join(names)}). Received: "
                    f"{asked}; leave weights out for random ones"
                )
            weights = zoo.folder(asked)
        net = load_trained(weights, **options)
        here, there = {"model": model, "depth": depth, "shortcut": shortcut}, describe(net)
        different = [
            f"{k} {there[k]} in the file, {v} here" for k, v in here.items() if there[k] != v
        ]
        if different:
            raise ValueError(f"weights must be those of this net. Received: {'; '.join(different)}")
    if include_top:
        return net
    return keras.Model(net.input, net.get_layer("head_pool").output, name=net.name)
