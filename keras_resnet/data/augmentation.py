"""The augmentation of the training images: a crop at a random place, and a flip (section 4.2).

`data` imports Keras in this module and in no other.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_resnet.data import philox
from keras_resnet.errors import integer, number


def draw_crops(seed: int, first: int, steps: int, batch_size: int, padding: int) -> np.ndarray:
    """The random numbers of `steps` updates, the first of them update `first`, counted from 0.

    Returns:
        int32 `(steps, batch_size, 3)`: row, column and mirroring of every image, for a `RandomPadCrop`
        of that `padding`, which takes the first two modulo 2 * padding + 1 and the third modulo 2.
    """
    crop_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    # A multiple of the number of crop places and of 2, so that all remainders are equally likely.
    limit = np.uint32(2 * (2 * padding + 1) ** 2)
    numbers = philox.integers(crop_seed, first, steps, batch_size * 3) % limit
    return numbers.astype(np.int32).reshape(steps, batch_size, 3)


@keras.saving.register_keras_serializable(package="keras_resnet")
class RandomPadCrop(keras.layers.Layer):
    """Pad and crop at a random place, a different one for every image (section 4.2).

    Keras's `RandomCrop` draws one place for the whole batch; this layer has (2 * padding + 1)^2
    equally likely places for each image. It sees raw pixels, so the border is not black but the colour
    that the net's normalization maps to the paper's zeros.

    Without `draw`, the numbers of the k-th call are a function of (seed, k) alone, which differs between
    backends: `seed_generator.state` is `(seed, k)`, and assigning it continues the stream.

    Args:
        padding: pixels added on each side, 0 or more.
        fill: colour of the border, one number per channel, in the units of the input (0..255).
        flip: also mirror each image left-right with probability 1/2, in the same pass over the batch.
        seed: integer.

    Call arguments:
        inputs: `(N, H, W, C)`, uint8 or float.
        draw: int32 `(N, 3)`, as `draw_crops` makes them. Default: the layer draws its own.
        training: False (validation, inference) leaves the images unchanged.

    Returns:
        float tensor `(N, H, W, C)` of the layer's compute dtype.
    """

    def __init__(
        self,
        padding: int = 4,  # section 4.2
        fill: tuple[float, ...] = (0.0, 0.0, 0.0),
        flip: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.padding, self.seed = integer("padding", padding), integer("seed", seed)
        self.flip = bool(flip)
        if self.padding < 0:
            raise ValueError(f"`padding` must be 0 or more. Received: {padding}")
        self.fill = tuple(number("fill", value) for value in fill)
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 4 or input_shape[-1] != len(self.fill):
            raise ValueError(
                "`fill` must be one number for each channel of the images (N, H, W, C). "
                f"Received: fill={self.fill}, images {input_shape}"
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
        rows_inside = ops.logical_and(rows >= 0, rows < height)
        columns_inside = ops.logical_and(columns >= 0, columns < width)
        inside = ops.logical_and(rows_inside[:, :, None], columns_inside[:, None, :])
        first = ops.arange(n, dtype="int32")[:, None] * height
        index = ((first + rows) * width)[:, :, None] + columns[:, None, :]
        # All pixels as one list, and the border's colour as its last.
        pixels = ops.cast(ops.reshape(inputs, (-1, channels)), self.compute_dtype)
        border = ops.convert_to_tensor([self.fill], dtype=self.compute_dtype)
        index = ops.where(inside, index, n * height * width)
        return ops.take(ops.concatenate([pixels, border]), index, axis=0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        names = ("padding", "fill", "flip", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
