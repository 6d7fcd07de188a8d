"""The device that Keras trains on, and the precision that suits it."""

from __future__ import annotations

from pathlib import Path

# Instructions of x86 that multiply a policy's 16-bit type; oneDNN has no fast convolutions without them.
NATIVE = {
    "mixed_bfloat16": ("avx512_bf16", "amx_bf16"),
    "mixed_float16": ("avx512_fp16",),  # Linux does not show amx_fp16
}


def cpu_name() -> str:
    """Model name of the CPU, as the kernel gives it."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "CPU"


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the CPU on Linux; empty elsewhere."""
    for line in _cpuinfo():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def device() -> tuple[str, str]:
    """Kind ("GPU" or "CPU") and name of the device that TensorFlow will train on."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name)
        return "GPU", str(name)
    return "CPU", cpu_name()


def precision(requested: str) -> tuple[str, str]:
    """Resolve `precision`: the Keras dtype policy and the reason for it."""
    if requested != "auto":
        return requested, "as asked for"
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        capability = details.get("compute_capability", (0, 0))
        text = f"the GPU's compute capability is {'.'.join(map(str, capability))}"
        if capability >= (8, 0):
            return "mixed_bfloat16", f"{text}: it multiplies bfloat16 natively"
        return "float32", f"{text}, below 8.0: no native bfloat16"
    if reason := _not_native("mixed_bfloat16"):
        return "float32", reason
    native = ", ".join(sorted(cpu_flags() & set(NATIVE["mixed_bfloat16"])))
    return "mixed_bfloat16", f"the CPU multiplies bfloat16 natively ({native})"


def emulation(policy: str) -> str:
    """Why a policy's 16-bit type is slow on this CPU; empty where it is not or may not be, and on a GPU.

    It is for the policies that are not chosen here: asked for, or those of a run from another machine. On
    an AMD EPYC with AVX2 alone, float32 trained ResNet-20 11 times as fast as bfloat16 and 4 times as
    fast as float16 (20 updates).
    """
    if policy not in NATIVE or device()[0] == "GPU" or not cpu_flags():
        return ""
    return _not_native(policy)


def _not_native(policy: str) -> str:
    """Why this CPU has no fast convolutions of a policy's 16-bit type; empty where it has."""
    if not onednn():
        return "TensorFlow runs without oneDNN on the CPU"
    flags = cpu_flags()
    if not flags:
        return "what the CPU multiplies natively is not known"
    if not flags & set(NATIVE[policy]):
        return f"the CPU has no {' or '.join(NATIVE[policy])}"
    return ""


def onednn() -> bool:
    """Whether TensorFlow computes with oneDNN on the CPU (see `commands.startup`); others give other bits."""
    from tensorflow.python.util import _pywrap_util_port  # no public name tells it

    return bool(_pywrap_util_port.IsMklEnabled())
