"""TensorFlow: the fastest on a CPU, and one GPU."""

from typing import Any

import tensorflow as tf

from keras_resnet.training import cpu
from keras_resnet.training.backends import Backend, Chunks, Hardware


class TensorFlow(Backend):
    def hardware(self) -> Hardware:
        gpus = tf.config.list_physical_devices("GPU")
        if not gpus:
            return Hardware("CPU", cpu.cpu_name())
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = details.get("compute_capability", (0, 0))
        return Hardware("GPU", str(details.get("device_name", "GPU")), capability[0], len(gpus))

    def feed(self, chunks: Chunks) -> tf.data.Dataset:
        (index, draw), label = next(chunks())
        specs = [tf.TensorSpec(array.shape, tf.int32) for array in (index, draw, label)]
        signature = (specs[0], specs[1]), specs[2]
        chunked = tf.data.Dataset.from_generator(chunks, output_signature=signature)
        return chunked.unbatch().prefetch(8)  # a call of Python per batch costs 2 % of the speed

    def compile_options(self, divisor: int) -> dict[str, Any]:
        # XLA is faster on a GPU (not measured here) and slower on a CPU, where an update takes so long that
        # the time of a call does not count.
        gpu = self.hardware().kind == "GPU"
        return {"jit_compile": gpu, "steps_per_execution": divisor if gpu else 1}


BACKEND = TensorFlow()
