"""The device that Keras trains on, and the precision that suits it."""

from __future__ import annotations

import keras

from keras_resnet.runs.folder import Device
from keras_resnet.training import backends
from keras_resnet.training.cpu import NATIVE, cpu_flags


def device() -> tuple[str, str]:
    """Kind ("GPU", "TPU", "MPS" or "CPU") and name of the device that is trained on."""
    return backends.current().device()


def facts() -> Device:
    """The device as it is recorded; `count` where there are several."""
    kind, name = device()
    distribution = keras.distribution.distribution()
    if distribution is None:
        return {"kind": kind, "name": name}
    return {"kind": kind, "name": name, "count": int(distribution.device_mesh.devices.size)}


def precision(requested: str) -> tuple[str, str]:
    """Resolve `precision`: the Keras dtype policy and the reason for it."""
    if requested != "auto":
        return requested, "as asked for"
    native, reason = backends.current().native("mixed_bfloat16")
    return "mixed_bfloat16" if native else "float32", reason


def emulation(policy: str) -> str:
    """Why a policy's 16-bit type is slow on this CPU; empty where it is not or may not be, and on a GPU.

    It is for the policies that are not chosen here: asked for, or those of a run from another machine. On
    an AMD EPYC with AVX2 alone, float32 trained ResNet-20 11 times as fast as bfloat16 and 4 times as
    fast as float16 (20 updates).
    """
    if policy not in NATIVE or device()[0] != "CPU" or not cpu_flags():
        return ""
    native, reason = backends.current().native(policy)
    return "" if native else reason


def onednn() -> bool | None:
    """Whether TensorFlow computes with oneDNN on the CPU; None on another backend."""
    if keras.backend.backend() != "tensorflow":
        return None
    from keras_resnet.training.backends import tensorflow

    return tensorflow.onednn()
