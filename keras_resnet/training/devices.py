"""The device that Keras trains on, and the precision that suits it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from keras_resnet import console
from keras_resnet.runs import provenance
from keras_resnet.runs.folder import Device, RunConfig
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


@contextlib.contextmanager
def distributed(devices: int | None) -> Iterator[int]:
    """Train on so many devices of each host, None for all that the backend can use; gives their sum."""
    before = keras.distribution.distribution()
    try:
        yield backends.current().distribute(devices)
    finally:
        keras.distribution.set_distribution(before)


def clear_session() -> None:
    """Free what Keras keeps of a net, but not the devices and the dtype policy, which it keeps there too."""
    devices, policy = keras.distribution.distribution(), keras.config.dtype_policy()
    keras.backend.clear_session()
    keras.distribution.set_distribution(devices)
    keras.config.set_dtype_policy(policy)


def precision(requested: str, began: RunConfig | None = None) -> tuple[str, str]:
    """Resolve `precision`: the Keras dtype policy and the reason for it.

    Args:
        requested: a policy, or "auto".
        began: config.json of a run that goes on, on another machine perhaps: "auto" keeps its precision.
    """
    if requested != "auto":
        return requested, "as asked for"
    if began is not None:
        return began["precision"], "as this run began"
    native, reason = backends.current().native("mixed_bfloat16")
    return "mixed_bfloat16" if native else "float32", reason


def emulation(policy: str) -> str:
    """Why a policy's 16-bit type is slow on this CPU; empty where it is fast or not known, and on a GPU.

    It matters for a policy that was asked for, or that a run from another machine has. On an AMD EPYC with
    AVX2 alone, float32 trained ResNet-20 11 times as fast as bfloat16 and 4 times as fast as float16 (20
    updates).
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


def print_changes(old: RunConfig) -> None:
    """Print what differs from where a run began: its bits may not be repeatable then."""
    facts_now: list[tuple[str, object, object]] = [
        ("other versions", old.get("versions"), provenance.versions(keras.backend.backend())),
        ("another device", old.get("device"), facts()),
    ]
    now = onednn()
    if now is not None and device()[0] == "CPU":  # on a GPU it changes nothing of the training
        other = "another" if "onednn" in old else "perhaps another"
        facts_now.append((f"{other} use of oneDNN", old.get("onednn", "not recorded"), now))
    for what, then, now_ in facts_now:
        if then != now_:
            console.print_line(f"note: this run began with {what} ({then}): not exactly repeatable")
