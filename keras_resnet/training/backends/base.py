"""What each backend's module has to offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
import numpy as np

from keras_resnet import console
from keras_resnet.errors import UserError

EVALUATION_BATCH = 500
# Of one update: indices (batch,) and crops (batch, 3), and labels (batch,); all int32.
Batch = tuple[tuple[np.ndarray, np.ndarray], np.ndarray]
# The same of several updates, with one axis more in front.
Chunk = Batch


class Backend(Protocol):
    """The functions that each of the modules has."""

    def device(self) -> tuple[str, str]:
        """Kind ("GPU", "TPU", "MPS" or "CPU") and name of the device that is trained on."""

    def native(self, policy: str) -> tuple[bool, str]:
        """Whether a mixed policy's 16-bit type makes training faster here, and why (not)."""

    def distribute(self, devices: int | None) -> int:
        """Train on so many devices of this host; None takes all that the backend can use.

        Call it before anything is built. Returns the devices of all hosts together. Raises UserError
        where there are not so many.
        """

    def feed(self, chunks: Callable[[], Iterator[Chunk]]) -> Any:
        """What `fit` takes, of a function that begins an endless stream of chunks of batches."""

    def compile_options(self, divisor: int) -> dict[str, Any]:
        """Arguments of `compile`, where `divisor` updates may be made between two looks at the run."""

    def predict(self, model: keras.Model, images: np.ndarray) -> np.ndarray:
        """The model's outputs for all images, `EVALUATION_BATCH` at a time."""


def unchunked(chunks: Iterator[Chunk]) -> Iterator[Batch]:
    """The batches of chunks, one after the other."""
    for (index, draw), label in chunks:
        yield from zip(zip(index, draw, strict=True), label, strict=True)


def one_device(devices: int | None, found: int) -> int:
    """`distribute` of a backend that trains on one device, where `found` are there."""
    name = keras.backend.backend()
    if devices is not None and devices > 1:
        raise UserError(
            f"`devices` must be 1 on {name}. Received: {devices}; KERAS_BACKEND=jax uses several"
        )
    if devices is None and found > 1:
        console.print_line(
            f"note: {name} trains on one of the {found} GPUs; KERAS_BACKEND=jax uses all"
        )
    return 1
