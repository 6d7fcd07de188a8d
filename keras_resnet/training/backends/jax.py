"""JAX: GPUs and TPUs, all devices of a host, and many hosts."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from keras_resnet.errors import UserError
from keras_resnet.training import cpu
from keras_resnet.training.backends import Backend, Chunks, Hardware, evaluation_batch


class JAX(Backend):
    def hardware(self) -> Hardware:
        first = jax.devices()[0]
        if first.platform == "cpu":
            return Hardware("CPU", cpu.cpu_name())
        major = str(getattr(first, "compute_capability", "")).partition(".")[0]
        capability = int(major) if major.isdecimal() else 0  # AMD's is a name
        return Hardware(first.platform.upper(), first.device_kind, capability)

    def distribute(self, devices: int | None) -> int:
        processes = jax.process_count()
        hosts = [[d for d in jax.devices() if d.process_index == k] for k in range(processes)]
        here = min(len(host) for host in hosts)
        if len(jax.devices()) != here * processes:  # JAX wants a grid of processes and devices
            raise UserError(
                "all processes must have the same number of devices. Received: "
                f"{[len(host) for host in hosts]}; hide some, with CUDA_VISIBLE_DEVICES for example"
            )
        if devices and devices > here:
            raise UserError(f"`devices` must be at most {here} on this host. Received: {devices}")
        chosen = [f"{d.platform}:{d.id}" for host in hosts for d in host[: devices or here]]
        if len(chosen) > 1:
            # Each process feeds its own rows of the batch.
            parallel = keras.distribution.DataParallel(devices=chosen, auto_shard_dataset=False)
            keras.distribution.set_distribution(parallel)
        return len(chosen)

    def feed(self, chunks: Chunks) -> Any:
        processes, process = jax.process_count(), jax.process_index()
        for (index, draw), label in super().feed(chunks):
            rows = slice(*(len(label) * k // processes for k in (process, process + 1)))
            yield (index[rows], draw[rows]), label[rows]

    def compile_options(self, divisor: int) -> dict[str, Any]:
        # Reading the logs after a call waits for the device: seldom on a GPU, by several updates per call.
        on_cpu = self.hardware().kind == "CPU"
        return {"jit_compile": True, "steps_per_execution": 1 if on_cpu else divisor}

    def predict(self, model: keras.Model, images: np.ndarray) -> np.ndarray:
        distribution = keras.distribution.distribution()
        if distribution is None:
            return super().predict(model, images)
        # Keras's `predict` cannot gather outputs from other hosts, and needs batches that divide evenly.
        mesh = distribution.device_mesh.backend_mesh
        rows = NamedSharding(mesh, PartitionSpec(distribution.batch_dim_name))
        forward = _forward(model, NamedSharding(mesh, PartitionSpec()))
        batch_size = -(-evaluation_batch(images) // mesh.size) * mesh.size
        groups = model.trainable_variables, model.non_trainable_variables
        values = [[variable.value for variable in group] for group in groups]
        outputs = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            filled = np.resize(batch, (batch_size, *batch.shape[1:]))
            shards = jax.make_array_from_callback(filled.shape, rows, filled.__getitem__)
            outputs.append(np.asarray(forward(*values, shards))[: len(batch)])
        return np.concatenate(outputs)


@functools.lru_cache(maxsize=1)
def _forward(model: keras.Model, replicated: NamedSharding) -> Callable[..., Any]:
    """The model as a compiled function of its variables and images, whose outputs are on all devices."""

    def forward(trainable: Any, other: Any, images: Any) -> Any:
        return model.stateless_call(trainable, other, images, training=False)[0]

    return jax.jit(forward, out_shardings=replicated)


BACKEND = JAX()
