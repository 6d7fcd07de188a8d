"""`resnet` and `plain` with trained weights: `keras_resnet.resnet(depth=20, weights="cifar10")`."""

from __future__ import annotations

from typing import Any

import keras

from keras_resnet.inference.keras_file import load_keras
from keras_resnet.nets import resnet as nets
from keras_resnet.nets.describe import describe, recognize_dataset
from keras_resnet.nets.family import blocks_per_stage
from keras_resnet.zoo.registry import Entry, folder, trained


def resnet(depth: int = 20, *, weights: str | None = None, **options: Any) -> keras.Model:
    """A residual network of section 4.2, with random or trained weights.

    Args:
        depth: number of weighted layers on the longest path, 6n + 2.
        weights: `"cifar10"` gives the trained weights that come with the package, for the depths that
            `keras_resnet.zoo.list()` has (zeropad, CIFAR-10's classes, mean and std; any size of
            images); default random ones.
        **options: those of `keras_resnet.nets.resnet.resnet`: shortcut, num_classes, input_shape, mean,
            std, seed, dtype, name.

    Returns:
        `keras.Model` from raw RGB pixels 0..255 `(N, height, width, channels)`, uint8 or float32, to
        class probabilities `(N, num_classes)`, float32.

    Raises:
        ValueError: for arguments that `keras_resnet.nets.resnet.resnet` refuses, or weights that there
            are not for this net; the message names those that there are.
        UserError: if the file of the weights is missing or damaged.
    """
    return _build("resnet", depth, weights, options)


def plain(depth: int = 20, *, weights: str | None = None, **options: Any) -> keras.Model:
    """The plain counterpart: `resnet` without shortcuts. Arguments, result and errors as there."""
    return _build("plain", depth, weights, options)


def _build(model: str, depth: int, weights: str | None, options: dict[str, Any]) -> keras.Model:
    entry = None
    if weights is not None:
        blocks_per_stage(depth)
        entry = trained(model, depth, weights)
    net = nets.BUILDERS[model](depth, **options)
    if entry is not None:
        _assign(net, entry)
    return net


def kind_of(net: keras.Model) -> dict[str, Any]:
    """What decides whether weights fit a net: model, depth, shortcut and number of classes."""
    described = describe(net)
    return {key: described[key] for key in ("model", "depth", "shortcut", "num_classes")}


def _assign(net: keras.Model, entry: Entry) -> None:
    """Give a net the weights of the zoo, if it is the net that they were trained in."""
    expected = {key: getattr(entry, key) for key in ("model", "depth", "shortcut", "num_classes")}
    found = kind_of(net)
    if found != expected or recognize_dataset(net) != entry.dataset:
        shortcut = f", shortcut={found['shortcut']!r}" if found["shortcut"] else ""
        with_shortcut = f", shortcut={entry.shortcut!r}," if entry.shortcut else ""
        raise ValueError(
            f"weights={entry.dataset!r} are those of {entry.model}(depth={entry.depth}) with "
            f"{entry.num_classes} classes{with_shortcut} and the mean and std of {entry.dataset}. "
            f"Received: {found['model']}(depth={found['depth']}{shortcut}) with "
            f"{found['num_classes']} classes and the mean and std of "
            f"{recognize_dataset(net) or 'no data set of ours'}; leave weights out"
        )
    net.set_weights(load_keras(folder(entry)).get_weights())
