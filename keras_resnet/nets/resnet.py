"""The CIFAR networks of He et al. 2015 (arXiv:1512.03385, section 4.2): architecture only."""

import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_resnet.data.constants import CIFAR10_MEAN, CIFAR10_STD
from keras_resnet.errors import UserError, integer, number
from keras_resnet.nets.family import MODELS, SHORTCUTS, blocks_per_stage
from keras_resnet.nets.layers import BatchNormalization, ZeroPadShortcut, use_fast_convolution


def allow_deep_graphs() -> None:
    """Raise Python's recursion limit for good: Keras walks a graph by recursion, several frames per layer.

    ResNet-1202 has 4,200 layers. Building, training, saving and exporting it all need this.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 40_000))


def build(
    model: str,
    depth: int = 20,
    *,
    shortcut: str = "zeropad",
    num_classes: int = 10,
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
    seed: int = 0,
    dtype: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """Build a network of section 4.2: 3x3 conv, 3 stages of n blocks with 16/32/64 filters, dense.

    Args:
        model: `"resnet"` or `"plain"`, which has no shortcuts, whatever `shortcut` is.
        others: see `keras_resnet.resnet`, for the result and the errors too.
    """
    for option, value, known in (("model", model, MODELS), ("shortcut", shortcut, SHORTCUTS)):
        if value not in known:
            raise UserError(f"{option} must be one of {', '.join(known)}. Received: {value!r}")
    n = blocks_per_stage(depth)
    if (seed := integer("seed", seed)) < 0:
        raise UserError(f"seed must be 0 or more. Received: {seed}")
    if (num_classes := integer("num_classes", num_classes)) < 2:
        raise UserError(f"num_classes must be 2 or more. Received: {num_classes}")
    if not isinstance(input_shape, Sequence) or len(input_shape) != 3:
        raise UserError(f"input_shape must be (height, width, channels). Received: {input_shape}")
    if not np.shape(mean) == np.shape(std) == (input_shape[-1],):
        raise UserError(
            "mean and std must have one number per channel. "
            f"Received: {mean}, {std} for images {input_shape}"
        )
    odd = any(side and side % 4 for side in input_shape[:2])
    if (model, shortcut) == ("resnet", "zeropad-maxpool") and odd:
        raise UserError(
            "zeropad-maxpool halves the image twice: height and width must be divisible by 4. "
            f"Received: input_shape={input_shape}"
        )
    mean = [number("mean", value) for value in mean]
    std = [number("std", value) for value in std]
    if min(std) <= 0:
        raise UserError(f"std must be above 0 in each channel. Received: std={std}")
    if depth > 110:
        allow_deep_graphs()
    seeds = iter(np.random.SeedSequence(seed).generate_state(2 * depth).tolist())

    def conv_bn(x: Any, filters: int, size: int, strides: int, path: str) -> Any:
        """The only place with the padding, the initialization and the constants of BN."""
        if strides > 1 and size > 1:
            # One pixel on every side; Keras's "same" pads (0, 1) on even sizes, off by one pixel.
            pad = layers.ZeroPadding2D(size // 2, "channels_last", dtype=dtype, name=f"{path}_pad")
            x = pad(x)
        conv = layers.Conv2D(
            filters,
            size,
            strides,
            padding="same" if strides == 1 else "valid",
            data_format="channels_last",  # whatever the user's keras.json says
            use_bias=False,
            # Kaiming normal for ReLU (He et al. 2015b): untruncated, fan-out.
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal", seed=next(seeds)
            ),
            dtype=dtype,
            name=path,
        )
        x = use_fast_convolution(conv)(x)
        path = path.replace("conv", "bn") if "conv" in path else f"{path}_bn"
        return BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, name=path)(x)

    def relu(x: Any, path: str) -> Any:
        return layers.ReLU(dtype=dtype, name=path)(x)

    def block(x: Any, filters: int, strides: int, path: str) -> Any:
        y = relu(conv_bn(x, filters, 3, strides, f"{path}_conv1"), f"{path}_relu1")
        y = conv_bn(y, filters, 3, 1, f"{path}_conv2")
        if model == "resnet":
            changes, place = strides > 1 or x.shape[-1] != filters, f"{path}_shortcut"
            if shortcut == "projection-all" or (shortcut == "projection" and changes):
                x = conv_bn(x, filters, 1, strides, place)
            elif changes:
                pooling = "max" if shortcut == "zeropad-maxpool" else None
                x = ZeroPadShortcut(filters, strides, pooling, dtype=dtype, name=place)(x)
            y = layers.Add(dtype=dtype, name=f"{path}_add")([x, y])
        return relu(y, f"{path}_relu2")

    image = keras.Input(input_shape, dtype="float32", name="image")
    scale: list[Any] = [1.0 / s for s in std]
    offset: list[Any] = [-m / s for m, s in zip(mean, std, strict=True)]
    if keras.config.image_data_format() == "channels_first":
        # Keras would take the constants of each channel for those of each row; three axes say which.
        scale, offset = [[scale]], [[offset]]
    x = layers.Rescaling(scale, offset, dtype="float32", name="normalization")(image)
    x = relu(conv_bn(x, 16, 3, 1, "stem_conv"), "stem_relu")
    for stage, filters in enumerate((16, 32, 64), start=1):
        for index in range(1, n + 1):
            strides = 2 if stage > 1 and index == 1 else 1
            x = block(x, filters, strides, f"stage{stage}_block{index}")
    # The head is float32 under any policy: a mean and logits of 8 significant bits would cost accuracy.
    x = layers.GlobalAveragePooling2D("channels_last", dtype="float32", name="head_pool")(x)
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
    return keras.Model(image, outputs, name=name or f"{model}{depth}")
