"""`resnet` and `plain`, with random or trained weights: `keras_resnet.resnet(20, weights="cifar10")`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.data.constants import CIFAR10_MEAN, CIFAR10_STD, DATASETS
from keras_resnet.inference import zoo
from keras_resnet.inference.open import load_keras
from keras_resnet.nets.describe import describe, normalization_of
from keras_resnet.nets.resnet import build
from keras_resnet.nets.stock import copy_weights


def resnet(
    depth: int = 20,
    *,
    weights: str | os.PathLike[str] | None = None,
    shortcut: str = "zeropad",
    num_classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
    seed: int = 0,
    dtype: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """A residual network of He et al. 2015, section 4.2: its layers can be trained, frozen and changed.

    Args:
        depth: number of weighted layers on the longest path, 6n + 2.
        weights: None for random ones; `"cifar10"` for the trained ones that come with the package, for
            the depths that `keras_resnet.zoo.list()` has; or the path of a `.keras` file or a run folder
            with a net of the same depth, shortcut, classes, mean and std. The size of its images may differ.
        shortcut: what joins blocks of different shape: `"zeropad"` (the paper's option A),
            `"projection"` (option B: 1x1 conv + BN), `"projection-all"` (option C: on every block),
            `"zeropad-maxpool"` (2x2 maxima instead of every second pixel).
        num_classes: 2 or more.
        input_shape: (height, width, channels) of the images.
        mean, std: one number per channel in pixel units: `(pixels - mean) / std` is what the net sees.
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
        UserError: if the file of the weights is missing or damaged.
    """
    return _build(
        "resnet", depth, weights, shortcut=shortcut, num_classes=num_classes, input_shape=input_shape,
        mean=mean, std=std, seed=seed, dtype=dtype, name=name,
    )  # fmt: skip


def plain(
    depth: int = 20, *, weights: str | os.PathLike[str] | None = None, **options: Any
) -> keras.Model:
    """The plain counterpart: `resnet` without shortcuts. Other options, result and errors are the same."""
    if "shortcut" in options:
        raise TypeError("plain() has no shortcuts. Received: shortcut; leave it out")
    return _build("plain", depth, weights, **options)


def _build(
    model: str, depth: int, weights: str | os.PathLike[str] | None, **options: Any
) -> keras.Model:
    net = build(model, depth, **options)
    if weights is None:
        return net
    source = load_keras(_path_of(model, depth, weights))
    expected, received = _identity(source), _identity(net)
    different = [
        f"{key} {value} in the file, {received[key]} here"
        for key, value in expected.items()
        if value != received[key]
    ]
    if different:
        raise ValueError(f"weights must be those of the same net. Received: {'; '.join(different)}")
    copy_weights(source, net)
    return net


def _identity(net: keras.Model) -> dict[str, Any]:
    """What two nets must have in common to share weights: everything but the size of their images."""
    normalization = normalization_of(net)
    mean_and_std = None if normalization is None else np.round(normalization, 3).tolist()
    return {**describe(net), "input_shape": None, "mean and std": mean_and_std}


def _path_of(model: str, depth: int, weights: str | os.PathLike[str]) -> Path:
    """The file or folder that `weights` names."""
    if weights not in DATASETS and Path(weights).exists():
        return Path(weights)
    calls = {f"{e.model}(depth={e.depth}, weights={e.dataset!r})": e.name for e in zoo.entries()}
    call = f"{model}(depth={depth}, weights={os.fspath(weights)!r})"
    if call not in calls:
        raise ValueError(
            f"weights must be those of a trained net, {', '.join(calls)}, or the path of a .keras file. "
            f"Received: {call}; leave weights out for random ones"
        )
    return zoo.folder(calls[call])
