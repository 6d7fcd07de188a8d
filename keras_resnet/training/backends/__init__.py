"""What Keras's backends offer for training, with one small module for what each does differently."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_resnet import console
from keras_resnet.data.images import images_per_chunk
from keras_resnet.errors import UserError

# Of several updates: indices (updates, batch), crops (updates, batch, 3) and labels (updates, batch); int32.
Chunk = tuple[tuple[np.ndarray, np.ndarray], np.ndarray]
Chunks = Callable[[], Iterator[Chunk]]  # each call begins an endless iterator


def evaluation_batch(images: np.ndarray) -> int:
    """How many images are evaluated at a time: 500, fewer of more than 64 x 64 pixels."""
    return images_per_chunk(images.shape[1], images.shape[2], most=500)


class Hardware(NamedTuple):
    """What Keras trains on."""

    kind: str  # "GPU", "TPU", "MPS" or "CPU"
    name: str
    capability: int = 0  # major version of the compute capability of an NVIDIA GPU
    gpus: int = 1  # that the backend sees on this host


class Backend:
    """The defaults: one device, to which Python feeds batch after batch."""

    def hardware(self) -> Hardware:
        """The first device that Keras trains on."""
        raise NotImplementedError

    def distribute(self, devices: int | None) -> int:
        """Train on this many devices of this host, None for all; returns their number on all hosts.

        Call it before anything is built. Raises UserError if there are fewer.
        """
        name, gpus = keras.backend.backend(), self.hardware().gpus
        if devices is not None and devices > 1:
            raise UserError(
                f"`devices` must be 1 on {name}. Received: {devices}; KERAS_BACKEND=jax uses several"
            )
        if devices is None and gpus > 1:
            console.print_line(f"note: {name} uses one of {gpus} GPUs; KERAS_BACKEND=jax uses all")
        return 1

    def feed(self, chunks: Chunks) -> Any:
        """The argument of `fit`."""
        for (index, draw), label in chunks():
            yield from zip(zip(index, draw, strict=True), label, strict=True)

    def compile_options(self, divisor: int) -> dict[str, Any]:
        """Arguments of `compile`, where `divisor` updates may be made in one call of the device."""
        return {"jit_compile": False, "steps_per_execution": 1}

    def predict(self, model: keras.Model, images: np.ndarray) -> np.ndarray:
        """The model's outputs for all images."""
        return model.predict(images, batch_size=evaluation_batch(images), verbose=0)


def current() -> Backend:
    module = importlib.import_module(f"{__name__}.{keras.backend.backend()}")
    backend: Backend = module.BACKEND
    return backend
