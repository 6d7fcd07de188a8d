"""PyTorch: a Mac's GPU, and one NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch

from keras_resnet.training import cpu
from keras_resnet.training.backends.base import (
    EVALUATION_BATCH,
    Batch,
    Chunk,
    one_device,
    unchunked,
)


def device() -> tuple[str, str]:
    there = _place()
    match there.type:
        case "cuda":
            return "GPU", torch.cuda.get_device_name(there)
        case "mps":
            return "MPS", "the Mac's GPU"
        case "cpu":
            return "CPU", cpu.cpu_name()
    return there.type.upper(), str(there)


def _place() -> torch.device:
    """Where Keras puts tensors: mps, else cuda, else the CPU, unless KERAS_TORCH_DEVICE says otherwise."""
    return keras.ops.zeros(()).device


def native(policy: str) -> tuple[bool, str]:
    match device()[0]:
        case "GPU":
            major, minor = torch.cuda.get_device_capability(_place())
            known = f"the GPU's compute capability is {major}.{minor}"
            return major >= 8, f"{known}; bfloat16 is native from 8.0 on"
        case "CPU":
            return cpu.native(policy)
    return False, "bfloat16 was not measured on this device"


def distribute(devices: int | None) -> int:
    return one_device(devices, torch.cuda.device_count() if _place().type == "cuda" else 1)


def feed(chunks: Callable[[], Iterator[Chunk]]) -> Iterator[Batch]:
    return unchunked(chunks())


def compile_options(divisor: int) -> dict[str, Any]:
    # Keras refuses more than one step per execution here; torch.compile takes minutes to begin.
    return {"jit_compile": False, "steps_per_execution": 1}


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model.predict(images, batch_size=EVALUATION_BATCH, verbose=0)
