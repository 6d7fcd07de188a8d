"""The three layers that Keras does not have in the form the paper needs.

All are written with `keras.ops` (any backend) and registered for serialisation, so that
`keras.models.load_model` opens a saved net after `import keras_resnet`.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

_register = keras.saving.register_keras_serializable(package="keras_resnet")


@_register
class ZeroPadShortcut(keras.layers.Layer):
    """Parameter-free shortcut of He et al. 2015, section 3.3 option A (section 4.2 uses it).

    Takes every `strides`-th pixel (from pixel 0) and appends zero channels *at the end* until there
    are `filters`.

    Args:
        filters: number of channels of the output, at least the input's.
        strides: spatial step, 1 or more.
        pooling: `None` takes the pixels (the paper); `"max"` takes the maximum of each
            `strides` x `strides` window instead.

    Call arguments:
        inputs: float tensor `(N, H, W, C)`, any float dtype.

    Returns:
        Tensor of the input's dtype: `(N, ceil(H / strides), ceil(W / strides), filters)`, with
        `pooling="max"` `(N, H // strides, W // strides, filters)`.

    Raises:
        ValueError: if `filters` is smaller than the input's channels, `strides` is not a positive
            integer, or `pooling` is neither `None` nor `"max"`.
    """

    def __init__(self, filters: int, strides: int = 1, pooling: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if int(filters) != filters or filters < 1:
            raise ValueError(f"filters must be a positive integer. Received: filters={filters}")
        if int(strides) != strides or strides < 1:
            raise ValueError(f"strides must be a positive integer. Received: strides={strides}")
        if pooling not in (None, "max"):
            raise ValueError(f'pooling must be None or "max". Received: pooling={pooling!r}')
        self.filters = int(filters)
        self.strides = int(strides)
        self.pooling = pooling

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 4 or input_shape[-1] is None or input_shape[-1] > self.filters:
            raise ValueError(
                f"{self.name}: input must be (N, H, W, C) with C at most filters={self.filters}. "
                f"Received: input_shape={input_shape}"
            )

    def call(self, inputs: Any) -> Any:
        x = inputs
        if self.pooling == "max":
            x = ops.max_pool(x, self.strides, self.strides, "valid", "channels_last")
        elif self.strides > 1 and keras.backend.backend() == "torch":
            x = x[:, :: self.strides, :: self.strides]  # a view; Keras's pooling copies the input
        elif self.strides > 1:
            # A 1x1 average pool picks the same pixels as x[:, ::2, ::2]; its gradient is several
            # times faster on TensorFlow than the strided slice's.
            x = ops.average_pool(x, 1, self.strides, "valid", "channels_last")
        return ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, self.filters - inputs.shape[-1]]])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        def shrink(size: int | None) -> int | None:
            if size is None:
                return None
            return size // self.strides if self.pooling else -(-size // self.strides)

        n, height, width, _ = input_shape
        return n, shrink(height), shrink(width), self.filters

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
            "pooling": self.pooling,
        }


@_register
class RandomPadCrop(keras.layers.Layer):
    """Pad and crop at a random place, a different one for every image (section 4.2).

    The paper pads 4 pixels on each side and takes a random 32x32 crop. Keras's `RandomCrop` draws one
    place for the whole batch; this layer draws (2 * padding + 1)^2 equally likely offsets per image.
    The paper pads after subtracting the mean, with zeros; here the layer sees raw pixels, so the
    border is the colour that the net's normalisation maps to zero.

    What the layer itself draws in its k-th call is a pure function of (seed, k): `seed_generator.state`
    is `(seed, k)`, and assigning it continues the stream from any step. Backends draw other numbers.

    Args:
        padding: pixels added on each side, 0 or more.
        fill: colour of the border, one number per channel, in the units of the input (0..255).
        flip: also mirror each image left-right with probability 1/2 (after the crop). The same gather
            does it; Keras's `RandomFlip` costs several passes over the batch.
        seed: integer.

    Call arguments:
        inputs: `(N, H, W, C)`, uint8 or float.
        draw: int32 `(N, 3)`, 0 or more: row, column (modulo 2 * padding + 1) and mirroring (modulo 2)
            of each image's crop; see `data.crops`. Without it the layer draws by itself.
        training: without it (validation, inference) the images pass unchanged.

    Returns:
        float tensor `(N, H, W, C)` of the layer's compute dtype.

    Raises:
        ValueError: if `padding` is negative, or `fill` has not one number per channel.
    """

    def __init__(
        self,
        padding: int = 4,
        fill: tuple[float, ...] = (0.0, 0.0, 0.0),
        flip: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if int(padding) != padding or padding < 0:
            raise ValueError(
                f"padding must be an integer of 0 or more. Received: padding={padding}"
            )
        self.padding = int(padding)
        self.fill = tuple(float(value) for value in fill)
        self.flip = bool(flip)
        self.seed = int(seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 4 or input_shape[-1] != len(self.fill):
            raise ValueError(
                f"{self.name}: fill must have one number per channel. "
                f"Received: fill={self.fill}, input_shape={input_shape}"
            )

    def call(self, inputs: Any, draw: Any = None, training: bool = False) -> Any:
        if not training:
            return ops.cast(inputs, self.compute_dtype)
        _, height, width, channels = inputs.shape
        n = ops.shape(inputs)[0]
        pad, places = self.padding, 2 * self.padding + 1
        if draw is None:
            draw = keras.random.randint((n, 3), 0, places * places * 2, seed=self.seed_generator)
        # The source pixel of every output pixel. Gathering is one pass over the batch; padding, slicing
        # and selecting would be several.
        rows = ops.arange(height, dtype="int32") + draw[:, 0:1] % places - pad
        columns = ops.arange(width, dtype="int32") + draw[:, 1:2] % places - pad
        if self.flip:
            columns = ops.where(draw[:, 2:3] % 2 == 0, columns, ops.flip(columns, 1))
        inside = ops.logical_and(
            ops.logical_and(rows >= 0, rows < height)[:, :, None],
            ops.logical_and(columns >= 0, columns < width)[:, None, :],
        )
        first = ops.arange(n, dtype="int32")[:, None] * height
        index = ((first + rows) * width)[:, :, None] + columns[:, None, :]
        # All pixels as one list, the border's colour behind the last.
        pixels = ops.cast(ops.reshape(inputs, (-1, channels)), self.compute_dtype)
        border = ops.convert_to_tensor([self.fill], dtype=self.compute_dtype)
        index = ops.where(inside, index, n * height * width)
        return ops.take(ops.concatenate([pixels, border]), index, axis=0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "padding": self.padding,
            "fill": self.fill,
            "flip": self.flip,
            "seed": self.seed,
        }


@_register
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's `BatchNormalization` that trains with each backend's fused kernel.

    Keras computes the moments op by op in float32, which halves the speed of training on a CPU. In
    training on 4-D channels-last input this layer runs `FusedBatchNormV3` on TensorFlow and
    `torch.nn.functional.batch_norm` on PyTorch instead; on JAX, XLA fuses the operations. Activations are
    of any float dtype, statistics float32. Everything else (arguments, weights, config, inference, other
    axes) is Keras's.

    The one difference: the running variance is the unbiased one (n/(n-1)), as in PyTorch and Caffe.
    Keras's is the biased one.

    Call arguments:
        inputs: float tensor `(N, H, W, C)`; N * H * W must be above 1 in training.

    Returns:
        Tensor of the input's shape and dtype.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        fused = (
            training
            and self.trainable
            and mask is None
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.scale
            and self.center
            and not self.renorm
            and not self.synchronized
            and self.moving_mean.dtype == "float32"
        )
        if not fused:
            return super().call(inputs, training=training, mask=mask)
        match keras.backend.backend():
            case "tensorflow":
                return self._call_tensorflow(inputs)
            case "torch":
                return self._call_torch(inputs)
        return self._call_jax(inputs)

    def _call_tensorflow(self, inputs: Any) -> Any:
        import tensorflow as tf  # only where it is the backend

        # Given the running statistics, the kernel updates them too: 8 small operations fewer per layer.
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.convert_to_tensor(self.moving_mean),
            variance=tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            exponential_avg_factor=1.0 - self.momentum,
            is_training=True,
        )
        self.moving_mean.assign(mean)
        self.moving_variance.assign(variance)
        return outputs

    def _call_torch(self, inputs: Any) -> Any:
        import torch

        outputs = torch.nn.functional.batch_norm(
            inputs.permute(0, 3, 1, 2),  # channels last in memory: a view, which the kernel takes
            self.moving_mean.value,  # updated in place
            self.moving_variance.value,
            self.gamma.value,
            self.beta.value,
            training=True,
            momentum=1.0 - self.momentum,
            eps=self.epsilon,
        )
        return outputs.permute(0, 2, 3, 1)

    def _call_jax(self, inputs: Any) -> Any:
        x = ops.cast(inputs, "float32")
        mean, variance = ops.moments(x, axes=(0, 1, 2))
        count = inputs.shape[0] * inputs.shape[1] * inputs.shape[2]  # of all devices
        kept, new = self.momentum, 1.0 - self.momentum
        self.moving_mean.assign(self.moving_mean * kept + mean * new)
        unbiased = variance * (count / (count - 1))
        self.moving_variance.assign(self.moving_variance * kept + unbiased * new)
        outputs = ops.batch_normalization(
            x, mean, variance, -1, self.beta, self.gamma, self.epsilon
        )
        return ops.cast(outputs, inputs.dtype)


def use_fast_convolution(layer: keras.layers.Conv2D) -> keras.layers.Conv2D:
    """The layer, which on PyTorch computes on channels-last memory as it lies there.

    Keras 3.15's own way copies each input to channels first and back. Nothing else of the layer changes:
    it is saved, and opened elsewhere, as Keras's. The layer must have no dilation, and odd kernels where
    its padding is "same".
    """
    if keras.backend.backend() != "torch":
        return layer
    import torch

    def convolution_op(inputs: Any, kernel: Any) -> Any:
        outputs = torch.nn.functional.conv2d(
            inputs.permute(0, 3, 1, 2),
            ops.convert_to_tensor(kernel, inputs.dtype).permute(3, 2, 0, 1),
            stride=layer.strides,
            padding=layer.kernel_size[0] // 2 if layer.padding == "same" else 0,
        )
        return outputs.permute(0, 2, 3, 1)

    layer.convolution_op = convolution_op
    return layer
