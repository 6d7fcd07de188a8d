"""The device that Keras trains on, and the precision that suits it."""

import contextlib
from collections.abc import Iterator

import keras

from keras_resnet import console
from keras_resnet.runs import provenance
from keras_resnet.runs.folder import Device, RunConfig
from keras_resnet.training import backends, cpu


def facts() -> Device:
    """The device as config.json and results.json record it; `count` where there are several."""
    hardware, distribution = backends.current().hardware(), keras.distribution.distribution()
    device: Device = {"kind": hardware.kind, "name": hardware.name}
    if distribution is not None:
        device["count"] = int(distribution.device_mesh.devices.size)
    return device


@contextlib.contextmanager
def distributed(devices: int | None) -> Iterator[int]:
    """Train on this many devices of each host, None for all it can use; yields their number on all hosts."""
    before = keras.distribution.distribution()
    try:
        yield backends.current().distribute(devices)
    finally:
        keras.distribution.set_distribution(before)


def clear_session() -> None:
    """Free what Keras remembers of nets, but keep its devices and dtype policy, which are cleared with it."""
    devices, policy = keras.distribution.distribution(), keras.config.dtype_policy()
    keras.backend.clear_session()
    keras.distribution.set_distribution(devices)
    keras.config.set_dtype_policy(policy)


def precision(requested: str, began: RunConfig | None = None) -> tuple[str, str]:
    """Resolve `precision`: the Keras dtype policy and the reason for it.

    `began` is the config.json of a run that is resumed, maybe on another machine: "auto" keeps its precision.
    """
    if requested != "auto":
        return requested, "as asked for"
    if began is not None:
        return began["precision"], "as this run began"
    fast, reason = native("mixed_bfloat16")
    return "mixed_bfloat16" if fast else "float32", reason


def native(policy: str) -> tuple[bool, str]:
    """Whether the hardware multiplies a mixed policy's 16-bit type, and how that is known.

    The speed depends on it: on an AMD EPYC with AVX2 alone, float32 trained ResNet-20 11 times as fast as
    bfloat16 and 4 times as fast as float16.
    """
    kind, _, capability, _ = backends.current().hardware()
    match kind:
        case "GPU":
            known = f"compute capability {capability}.x; 16 bits are native from 8.0 on"
            return capability >= 8, known
        case "TPU":
            return True, "a TPU multiplies bfloat16 natively"
        case "CPU" if keras.backend.backend() == "jax":
            return False, "on a CPU, 16 bits were not found to be faster with XLA"
        case "CPU" if onednn() is False:
            return False, "TensorFlow runs without oneDNN on the CPU"
        case "CPU":
            return cpu.native(policy)
    return False, "16 bits were not measured on this device"


def onednn() -> bool | None:
    """Whether TensorFlow computes with oneDNN on the CPU (see `commands.startup`); None elsewhere.

    Without oneDNN, the same training ends with other bits.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    from tensorflow.python.util import _pywrap_util_port  # there is no public name for it

    return bool(_pywrap_util_port.IsMklEnabled())


def print_changes(old: RunConfig) -> None:
    """Print what has changed since a run began, as its bits may then not be repeatable."""
    for what, before, now in (
        ("set of versions", old.get("versions"), provenance.versions(keras.backend.backend())),
        ("device", old.get("device"), facts()),
        ("use of oneDNN", old.get("onednn", onednn()), onednn()),
    ):
        if before != now:
            text = f"note: this run began with another {what} ({before}): not exactly repeatable"
            console.print_line(text)
