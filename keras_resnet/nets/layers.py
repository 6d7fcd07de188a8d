"""The two layers of a net that Keras does not have in the form the paper needs."""

from typing import Any

import keras
from keras import ops

from keras_resnet.errors import integer


@keras.saving.register_keras_serializable(package="keras_resnet")
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
        ValueError: if `filters` is smaller than the input's channels, `strides` is not positive, or
            `pooling` is neither `None` nor `"max"`.
    """

    def __init__(self, filters: int, strides: int = 1, pooling: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.strides = integer("filters", filters), integer("strides", strides)
        self.pooling = pooling
        for name, value in (("filters", filters), ("strides", strides)):
            if value < 1:
                raise ValueError(f"{name} must be a positive integer. Received: {value}")
        if pooling not in (None, "max"):
            raise ValueError(f'pooling must be None or "max". Received: {pooling!r}')

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
        rounding = 0 if self.pooling else self.strides - 1
        n, *sizes, _ = input_shape
        sizes = [size and (size + rounding) // self.strides for size in sizes]
        return n, *sizes, self.filters

    def get_config(self) -> dict[str, Any]:
        names = ("filters", "strides", "pooling")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="keras_resnet")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's `BatchNormalization` that trains with each backend's fused kernel.

    Keras computes the moments op by op in float32; a net then trains 1.2 to 1.4 times as long on a CPU. In
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
        usual = self.scale and self.center and not self.renorm and not self.synchronized
        on_images = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None
        in_float32 = self.moving_mean.dtype == "float32"
        if not (training and self.trainable and usual and on_images and in_float32):
            return super().call(inputs, training=training, mask=mask)
        return getattr(self, f"_call_{keras.backend.backend()}")(inputs)

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
            inputs.permute(0, 3, 1, 2),  # a view; the kernel accepts channels last in memory
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
        x = ops.batch_normalization(x, mean, variance, -1, self.beta, self.gamma, self.epsilon)
        return ops.cast(x, inputs.dtype)


def use_fast_convolution(layer: keras.layers.Conv2D) -> keras.layers.Conv2D:
    """Make a layer convolve channels-last memory without a copy on PyTorch, and return it.

    Keras 3.15 copies each input to channels first and back. Nothing else changes: the layer is saved, and
    opened elsewhere, as Keras's. The layer must have no dilation, and odd kernels where
    its padding is "same".
    """

    def convolution_op(inputs: Any, kernel: Any) -> Any:
        import torch

        outputs = torch.nn.functional.conv2d(
            inputs.permute(0, 3, 1, 2),
            ops.convert_to_tensor(kernel, inputs.dtype).permute(3, 2, 0, 1),
            stride=layer.strides,
            padding=layer.kernel_size[0] // 2 if layer.padding == "same" else 0,
        )
        return outputs.permute(0, 2, 3, 1)

    if keras.backend.backend() == "torch":
        layer.convolution_op = convolution_op
    return layer
