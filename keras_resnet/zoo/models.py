"""`resnet` with trained weights: `keras_resnet.resnet(depth=20, weights="cifar10")`."""

from __future__ import annotations

from typing import Any

import keras

from keras_resnet.inference.keras_file import load_keras
from keras_resnet.nets import resnet as nets
from keras_resnet.nets.describe import describe, recognize_dataset
from keras_resnet.zoo.registry import FOLDER, NAMES, SHIPPED


def kind_of(net: keras.Model) -> dict[str, Any]:
    """What a net is, in the terms of `SHIPPED`."""
    described = describe(net)
    return {key: described[key] for key in SHIPPED}


def assign(net: keras.Model, weights: str) -> None:
    """Give a net of `resnet()` the shipped weights.

    Args:
        net: `resnet(depth=20)` with the normalization and classes of CIFAR-10, of any image size.
        weights: `"cifar10"`.

    Raises:
        ValueError: for another name, or a net that the weights do not fit.
        UserError: if the file of the weights is missing or damaged.
    """

    if weights not in NAMES:
        raise ValueError(f"weights must be None or {NAMES[0]!r}. Received: weights={weights!r}")
    is_net = kind_of(net)
    if is_net != SHIPPED or recognize_dataset(net) != "cifar10":
        shortcut = f", shortcut={is_net['shortcut']!r}" if is_net["shortcut"] else ""
        raise ValueError(
            "weights='cifar10' are those of resnet(depth=20) with 10 classes, shortcut='zeropad' and "
            f"CIFAR-10's mean and std. Received: {is_net['model']}(depth={is_net['depth']}{shortcut}) "
            f"with {is_net['num_classes']} classes and the mean and std of "
            f"{recognize_dataset(net) or 'no data set of ours'}; leave weights out"
        )
    net.set_weights(load_keras(FOLDER).get_weights())


def resnet(depth: int = 20, *, weights: str | None = None, **options: Any) -> keras.Model:
    """A residual network of section 4.2, with random or trained weights.

    Args:
        depth: number of weighted layers on the longest path, 6n + 2.
        weights: `"cifar10"` gives the trained weights that come with the package (depth 20, zeropad,
            CIFAR-10's classes, mean and std); default random ones.
        **options: those of `keras_resnet.nets.resnet.resnet`: shortcut, num_classes, input_shape, mean,
            std, seed, dtype, name.

    Returns:
        `keras.Model` from raw RGB pixels 0..255 `(N, height, width, channels)`, uint8 or float32, to
        class probabilities `(N, num_classes)`, float32.

    Raises:
        ValueError: for arguments that `keras_resnet.nets.resnet.resnet` refuses, or weights that there
            are not for this net.
        UserError: if the file of the weights is missing or damaged.
    """
    net = nets.resnet(depth, **options)
    if weights is not None:
        assign(net, weights)
    return net
