"""Which padding a checkpoint's shortcuts have, found with images: the wrong one changes all activations.

In training, each BN kept a running mean of what it saw. With the right padding and normalization, images of
the same data set have nearly these means. Measured on 64 images of CIFAR-10, ResNet-20 and -56, in standard
deviations: 0.07 and 0.08 when right, 0.28 to 0.41 with the other padding, 0.26 and 0.28 without
normalization.
"""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from keras_resnet.data import datasets
from keras_resnet.data.images import find_images, read_image
from keras_resnet.errors import UserError

IMAGES = 64
FITS = 0.2  # standard deviations


def read_some_images(folder: Path | None, dataset: str) -> np.ndarray | None:
    """64 images of a folder, else of a data set where it is on this machine, else None."""
    if folder is not None:
        files, problems = find_images(folder)
        if not files:
            raise UserError(f"`images` must be a folder with images: {problems[0]}")
        return np.stack([read_image(file) for file in files[:IMAGES]])
    if not datasets.is_in(datasets.folder_of(dataset), dataset):
        return None
    return datasets.load(dataset).train_images[:IMAGES]


def choose_padding(
    at_end: keras.Model, convert_with: Callable[[str], keras.Model], images: np.ndarray | None
) -> tuple[keras.Model, str]:
    """The net with the padding that fits the images of its data set, and a line that says so.

    Without images it is `at_end`, the net with the padding "end"; `convert_with` makes one with another.
    """
    if images is None:
        return at_end, (
            "\nits shortcuts are taken to pad at the end; if its error is far above PyTorch's, convert with "
            "--padding split, or give images of its data set with --images"
        )
    nets = {"end": at_end, "split": convert_with("split")}
    off = {padding: deviation(net, images) for padding, net in nets.items()}
    best = min(off, key=off.__getitem__)
    line = (
        f"\npadding {best} fits {len(images)} images: their means before each BN are "
        f"{off[best]:.2f} standard deviations from the checkpoint's, {max(off.values()):.2f} with the other"
    )
    if off[best] > FITS:
        line += "\nwarning: that is far: check --mean and --std, and that the images are of its data set"
    return nets[best], line


def deviation(net: keras.Model, images: np.ndarray) -> float:
    """How far the images' means before each BN are from its running means, in standard deviations."""
    layers = [layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization)]
    seen = keras.Model(net.input, [layer.input for layer in layers]).predict(images, verbose=0)
    distances = []
    for layer, values in zip(layers, seen, strict=True):
        *_, mean, variance = layer.get_weights()
        distances.append(np.abs(values.mean((0, 1, 2)) - mean) / np.sqrt(variance + layer.epsilon))
    return float(np.mean(np.concatenate(distances)))
