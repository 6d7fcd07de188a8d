"""JAX: GPUs and TPUs, all devices of a host, and many hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import keras
import numpy as np

from keras_resnet.training import cpu
from keras_resnet.training.backends.base import Batch, Chunk, unchunked


def device() -> tuple[str, str]:
    first = jax.devices()[0]
    if first.platform == "cpu":
        return "CPU", cpu.cpu_name()
    return first.platform.upper(), first.device_kind


def native(policy: str) -> tuple[bool, str]:
    first = jax.devices()[0]
    match first.platform:
        case "gpu":
            known = f"the GPU's compute capability is {first.compute_capability}"
            ok = float(first.compute_capability) >= 8
            return ok, f"{known}; bfloat16 is native from 8.0 on"
        case "tpu":
            return True, "a TPU multiplies bfloat16 natively"
    return False, "on a CPU, XLA computes bfloat16 no faster"


def feed(chunks: Callable[[], Iterator[Chunk]]) -> Iterator[Batch]:
    return unchunked(chunks())


def compile_options(divisor: int) -> dict[str, Any]:
    # The logs of an update are looked at after it, which waits for the device: do so seldom on a GPU.
    return {"jit_compile": True, "steps_per_execution": divisor if device()[0] != "CPU" else 1}


def predict(model: keras.Model, images: np.ndarray, batch_size: int) -> np.ndarray:
    return model.predict(images, batch_size=batch_size, verbose=0)
