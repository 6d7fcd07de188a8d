"""TensorFlow: the fastest on a CPU, and one GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.training import cpu
from keras_resnet.training.backends.base import EVALUATION_BATCH, Chunk, one_device


def device() -> tuple[str, str]:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return "GPU", str(_details(gpus[0]).get("device_name", gpus[0].name))
    return "CPU", cpu.cpu_name()


def native(policy: str) -> tuple[bool, str]:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return gpu_native(_details(gpus[0]).get("compute_capability", (0, 0)))
    if not onednn():
        return False, "TensorFlow runs without oneDNN on the CPU"
    return cpu.native(policy)


def gpu_native(capability: tuple[int, int]) -> tuple[bool, str]:
    """Whether an NVIDIA GPU multiplies bfloat16: from Ampere on."""
    text = f"the GPU's compute capability is {'.'.join(map(str, capability))}"
    if capability >= (8, 0):
        return True, f"{text}: it multiplies bfloat16 natively"
    return False, f"{text}, below 8.0: no native bfloat16"


def onednn() -> bool:
    """Whether TensorFlow computes with oneDNN on the CPU (see `commands.startup`); others give other bits."""
    from tensorflow.python.util import _pywrap_util_port  # no public name tells it

    return bool(_pywrap_util_port.IsMklEnabled())


def distribute(devices: int | None) -> int:
    return one_device(devices, len(tf.config.list_physical_devices("GPU")))


def feed(chunks: Callable[[], Iterator[Chunk]]) -> tf.data.Dataset:
    (index, draw), label = next(chunks())
    specs = [tf.TensorSpec(array.shape, tf.int32) for array in (index, draw, label)]
    chunked = tf.data.Dataset.from_generator(
        chunks, output_signature=((specs[0], specs[1]), specs[2])
    )
    return chunked.unbatch().prefetch(8)  # a call of Python for each batch costs 2 % of the speed


def compile_options(divisor: int) -> dict[str, Any]:
    # XLA pays on a GPU (not measured here) and costs on a CPU. There an update takes so long that it
    # makes no difference how often Python is called.
    gpu = device()[0] == "GPU"
    return {"jit_compile": gpu, "steps_per_execution": divisor if gpu else 1}


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model.predict(images, batch_size=EVALUATION_BATCH, verbose=0)


def _details(gpu: Any) -> dict[str, Any]:
    return tf.config.experimental.get_device_details(gpu)
