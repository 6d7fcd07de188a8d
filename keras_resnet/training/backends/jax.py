"""JAX: GPUs and TPUs, all devices of a host, and many hosts."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import keras
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from keras_resnet.errors import UserError
from keras_resnet.training import cpu
from keras_resnet.training.backends.base import EVALUATION_BATCH, Batch, Chunk, unchunked


def device() -> tuple[str, str]:
    first = jax.devices()[0]
    if first.platform == "cpu":
        return "CPU", cpu.cpu_name()
    return first.platform.upper(), first.device_kind


def native(policy: str) -> tuple[bool, str]:
    first = jax.devices()[0]
    match first.platform:
        case "gpu":
            known = str(first.compute_capability)
            ok = known.replace(".", "", 1).isdecimal() and float(known) >= 8  # AMD's is a name
            return ok, f"the GPU's compute capability is {known}; 16 bits are native from 8.0 on"
        case "tpu":
            return True, "a TPU multiplies bfloat16 natively"
    kind = "a CPU" if first.platform == "cpu" else first.platform
    return False, f"on {kind}, 16 bits were not found to be faster with XLA"


def distribute(devices: int | None) -> int:
    counts = [0] * jax.process_count()
    for device in jax.devices():
        counts[device.process_index] += 1
    # Whatever is asked for: JAX's `process_allgather` wants a grid of processes and devices.
    if len(set(counts)) > 1:
        raise UserError(
            f"all processes must have the same number of devices. Received: {counts}; hide some, with "
            "CUDA_VISIBLE_DEVICES for example"
        )
    wanted = counts[0] if devices is None else devices
    if wanted > counts[0]:
        raise UserError(
            f"`devices` must be at most the {counts[0]} that are here. Received: {wanted}"
        )
    if wanted == 1 and jax.process_count() == 1:
        return 1
    chosen: list[str] = []
    for process in range(jax.process_count()):
        local = [device for device in jax.devices() if device.process_index == process]
        chosen += [f"{device.platform}:{device.id}" for device in local[:wanted]]
    keras.distribution.set_distribution(
        # Each process feeds its own rows of the batch.
        keras.distribution.DataParallel(devices=chosen, auto_shard_dataset=False)
    )
    return len(chosen)


def feed(chunks: Callable[[], Iterator[Chunk]]) -> Iterator[Batch]:
    processes, process = jax.process_count(), jax.process_index()
    for (index, draw), label in unchunked(chunks()):
        rows = slice(*(len(label) * k // processes for k in (process, process + 1)))
        yield (index[rows], draw[rows]), label[rows]


def compile_options(divisor: int) -> dict[str, Any]:
    # The logs of an update are looked at after it, which waits for the device: do so seldom on a GPU.
    return {"jit_compile": True, "steps_per_execution": divisor if device()[0] != "CPU" else 1}


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    distribution = keras.distribution.distribution()
    if distribution is None:
        return model.predict(images, batch_size=EVALUATION_BATCH, verbose=0)
    # Keras's own cannot put together what is on other hosts, and wants batches that divide.
    mesh = distribution.device_mesh.backend_mesh
    shards = NamedSharding(mesh, PartitionSpec(distribution.batch_dim_name))
    forward = _forward(model, NamedSharding(mesh, PartitionSpec()))
    batch_size = -(-EVALUATION_BATCH // mesh.size) * mesh.size
    processes, process = jax.process_count(), jax.process_index()
    mine = slice(*(batch_size * k // processes for k in (process, process + 1)))
    outputs = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padded = np.zeros((batch_size, *images.shape[1:]), images.dtype)
        padded[: len(batch)] = batch
        rows = jax.make_array_from_process_local_data(shards, padded[mine])
        values = [
            [v.value for v in vs]
            for vs in (model.trainable_variables, model.non_trainable_variables)
        ]
        outputs.append(np.asarray(forward(*values, rows))[: len(batch)])
    return np.concatenate(outputs)


# The compiled functions of the models that are still there.
_compiled: weakref.WeakKeyDictionary[keras.Model, Callable[..., Any]] = weakref.WeakKeyDictionary()


def _forward(model: keras.Model, replicated: NamedSharding) -> Callable[..., Any]:
    """The model as a compiled function of its variables and images, whose outputs are on all devices."""
    if model not in _compiled:
        reference = weakref.ref(model)

        def forward(trainable: Any, other: Any, images: Any) -> Any:
            there = reference()
            assert there is not None
            return there.stateless_call(trainable, other, images, training=False)[0]

        _compiled[model] = jax.jit(forward, out_shardings=replicated)
    return _compiled[model]
