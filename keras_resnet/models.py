"""The CIFAR networks of He et al. 2015 (arXiv:1512.03385, section 4.2), residual and plain.

    import keras_resnet
    net = keras_resnet.resnet(depth=56)     # a plain keras.Model: raw pixels in, probabilities out

`python -m keras_resnet.models --depth 56` prints the summary of a net.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_resnet import cli
from keras_resnet.layers import BatchNormalization, ZeroPadShortcut

SHORTCUTS = ("zeropad", "projection", "projection-all", "zeropad-maxpool")
PAPER_DEPTHS = (20, 32, 44, 56, 110, 1202)
DEEPEST = PAPER_DEPTHS[-1]

# Channel means and standard deviations of CIFAR-10's training images, in pixel units (0..255).
CIFAR10_MEAN = (125.306918046875, 122.950394140625, 113.86538318359375)
CIFAR10_STD = (62.99321928, 62.08870764, 66.70489964)


def blocks_per_stage(depth: int) -> int:
    """n of the paper's depth = 6n + 2. Raises ValueError, naming the nearest depths, for any other.

    The deepest is the paper's 1202: `allow_deep_graphs` is measured with it, and knows no more.
    """
    if isinstance(depth, int) and 8 <= depth <= DEEPEST and depth % 6 == 2:
        return (depth - 2) // 6
    below = min(max(8, (int(depth) - 2) // 6 * 6 + 2), DEEPEST - 6)
    above = below + 6 if depth > 8 else 14
    raise ValueError(
        f"depth must be 6n+2, 8 to {DEEPEST} ({', '.join(map(str, PAPER_DEPTHS))}). "
        f"Received: depth={depth}; nearest: {below}, {above}"
    )


def allow_deep_graphs() -> None:
    """Raise Python's recursion limit for good: Keras walks a graph by recursion, several frames a layer.

    ResNet-1202 has 4,200 layers. Building, training, saving and exporting it all need this.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 40_000))


def resnet(
    depth: int = 20,
    *,
    shortcut: str = "zeropad",
    num_classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
    seed: int = 0,
    dtype: str | None = None,
    name: str | None = None,
    weights: str | None = None,
) -> keras.Model:
    """Residual network of section 4.2: 3x3 conv, 3 stages of n blocks with 16/32/64 filters, dense.

    Args:
        depth: number of weighted layers on the longest path, 6n + 2.
        shortcut: what joins blocks of different shape: `"zeropad"` (the paper's option A),
            `"projection"` (option B: 1x1 conv + BN), `"projection-all"` (option C: on every block),
            `"zeropad-maxpool"` (2x2 maxima instead of every second pixel).
        num_classes: 2 or more.
        input_shape: (height, width, channels) of the images.
        mean: colour, one number a channel in pixel units, that is subtracted from the input.
        std: one number a channel in pixel units that the input is then divided by.
        seed: of the initial weights; the same seed gives the same weights.
        dtype: Keras dtype policy of the layers, e.g. `"mixed_bfloat16"`; default Keras's own.
            Normalisation, the dense layer and the softmax stay float32.
        name: of the model; default `"resnet<depth>"`.
        weights: `"cifar10"` gives the trained weights that come with the package (depth 20, zeropad,
            CIFAR-10's classes, mean and std); default random ones.

    Returns:
        `keras.Model` from raw RGB pixels 0..255 `(N, height, width, channels)`, uint8 or float32, to
        class probabilities `(N, num_classes)`, float32.

    Raises:
        ValueError: for a depth that is not 6n + 2 or above 1202 (the nearest two are named), an unknown
            shortcut, constants that do not fit the channels, or weights that there are not for this net.
        UserError: if the file of the weights is missing or damaged.
    """
    if shortcut not in SHORTCUTS:
        raise ValueError(
            f"shortcut must be one of {', '.join(SHORTCUTS)}. Received: shortcut={shortcut!r}"
        )
    net = _network(
        depth, shortcut, num_classes, input_shape, mean, std, seed, dtype, name or f"resnet{depth}"
    )
    if weights is not None:
        from keras_resnet import pretrained  # it knows files; this module does not

        pretrained.assign(net, weights)
    return net


def plain(
    depth: int = 20,
    *,
    num_classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
    seed: int = 0,
    dtype: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """The plain counterpart: `resnet` without shortcuts. Arguments, result and errors as there."""
    return _network(
        depth, None, num_classes, input_shape, mean, std, seed, dtype, name or f"plain{depth}"
    )


def _network(
    depth: int,
    shortcut: str | None,
    num_classes: int,
    input_shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    dtype: str | None,
    name: str,
) -> keras.Model:
    n = blocks_per_stage(depth)
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more. Received: num_classes={num_classes}")
    if not len(mean) == len(std) == input_shape[-1]:
        raise ValueError(
            "mean and std must have one number a channel. "
            f"Received: mean={mean}, std={std}, input_shape={input_shape}"
        )
    if depth > 110:
        allow_deep_graphs()
    seeds = iter(np.random.SeedSequence(seed).generate_state(2 * depth).tolist())

    def conv_bn(x: Any, filters: int, size: int, strides: int, path: str) -> Any:
        """The only place that knows padding, initialisation and BN constants."""
        if strides > 1 and size > 1:
            # One pixel on every side; Keras's "same" pads (0, 1) on even sizes, off by one pixel.
            x = layers.ZeroPadding2D(size // 2, dtype=dtype, name=f"{path}_pad")(x)
        x = layers.Conv2D(
            filters,
            size,
            strides,
            padding="same" if strides == 1 else "valid",
            use_bias=False,
            # Kaiming normal for ReLU (He et al. 2015b): untruncated, fan-out.
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal", seed=next(seeds)
            ),
            dtype=dtype,
            name=path,
        )(x)
        path = path.replace("conv", "bn") if "conv" in path else f"{path}_bn"
        return BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, name=path)(x)

    def relu(x: Any, path: str) -> Any:
        return layers.ReLU(dtype=dtype, name=path)(x)

    def block(x: Any, filters: int, strides: int, path: str) -> Any:
        y = relu(conv_bn(x, filters, 3, strides, f"{path}_conv1"), f"{path}_relu1")
        y = conv_bn(y, filters, 3, 1, f"{path}_conv2")
        if shortcut is not None:
            changes = strides > 1 or x.shape[-1] != filters
            if shortcut == "projection-all" or (shortcut == "projection" and changes):
                x = conv_bn(x, filters, 1, strides, f"{path}_shortcut")
            elif changes:
                pooling = "max" if shortcut == "zeropad-maxpool" else None
                x = ZeroPadShortcut(
                    filters, strides, pooling, dtype=dtype, name=f"{path}_shortcut"
                )(x)
            y = layers.Add(dtype=dtype, name=f"{path}_add")([x, y])
        return relu(y, f"{path}_relu2")

    image = keras.Input(input_shape, name="image")
    scale = [1.0 / s for s in std]
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    x = layers.Rescaling(scale, offset, dtype="float32", name="normalization")(image)
    x = relu(conv_bn(x, 16, 3, 1, "stem_conv"), "stem_relu")
    for stage, filters in enumerate((16, 32, 64), start=1):
        for index in range(1, n + 1):
            strides = 2 if stage > 1 and index == 1 else 1
            x = block(x, filters, strides, f"stage{stage}_block{index}")
    # The head is float32 under any policy: a mean and logits of 8 significant bits would cost accuracy.
    x = layers.GlobalAveragePooling2D(dtype="float32", name="head_pool")(x)
    # PyTorch's nn.Linear weights: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
    x = layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.VarianceScaling(
            1 / 3, "fan_in", "uniform", seed=next(seeds)
        ),
        dtype="float32",
        name="head_dense",
    )(x)
    outputs = layers.Softmax(dtype="float32", name="probabilities")(x)
    return keras.Model(image, outputs, name=name)


BUILDERS: dict[str, Callable[..., keras.Model]] = {"resnet": resnet, "plain": plain}


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m keras_resnet.models`: print the summary of a net."""
    parser = cli.ArgumentParser(prog="python -m keras_resnet.models", description=main.__doc__)
    parser.add_argument("--model", choices=sorted(BUILDERS), default="resnet")
    parser.add_argument("--depth", type=int, default=20, help="6n+2 (default: %(default)s)")
    parser.add_argument("--shortcut", choices=SHORTCUTS, default="zeropad")
    arguments = parser.parse_args(argv)
    if arguments.model == "plain" and arguments.shortcut != "zeropad":
        raise cli.UserError("--shortcut must be left out for --model plain, which has none")
    options = {"shortcut": arguments.shortcut} if arguments.model == "resnet" else {}
    try:
        net = BUILDERS[arguments.model](arguments.depth, **options)
    except ValueError as error:
        raise cli.UserError(str(error)) from None
    os.environ.setdefault("COLUMNS", "100")  # else a pipe cuts the table at 80
    net.summary(line_length=100)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
