"""What `--precision auto` chooses, and why."""

from __future__ import annotations

import pytest

from keras_resnet import environment


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2", "avx512f"}, "float32"),
        ({"avx512f", "avx512_bf16"}, "mixed_bfloat16"),
        ({"amx_bf16"}, "mixed_bfloat16"),
        (set(), "float32"),
    ],
)
def test_auto_on_a_cpu(flags: set, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cpu_flags", lambda: frozenset(flags))
    chosen, reason = environment.precision("auto")
    assert chosen == expected and "the CPU" in reason


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), "float32"), ((8, 0), "mixed_bfloat16"), ((9, 0), "mixed_bfloat16")],
)
def test_auto_on_a_gpu(capability: tuple, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": capability}
    )
    assert environment.precision("auto")[0] == expected


def test_what_was_asked_for_is_taken() -> None:
    assert environment.precision("mixed_float16")[0] == "mixed_float16"


def test_versions_and_commit() -> None:
    versions = environment.versions()
    assert versions["keras"].startswith("3.") and versions["tensorflow"].startswith("2.")
