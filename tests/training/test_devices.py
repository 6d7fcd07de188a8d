"""What `--precision auto` chooses, and why; versions and commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keras_resnet.commands import startup
from keras_resnet.runs import provenance
from keras_resnet.training import cpu, devices
from keras_resnet.training.backends import tensorflow


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
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(tensorflow, "onednn", lambda: True)
    chosen, reason = devices.precision("auto")
    assert chosen == expected and "the CPU" in reason
    monkeypatch.setattr(tensorflow, "onednn", lambda: False)
    assert devices.precision("auto") == ("float32", "TensorFlow runs without oneDNN on the CPU")


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
    assert devices.precision("auto")[0] == expected


def test_what_was_asked_for_is_taken() -> None:
    assert devices.precision("mixed_float16")[0] == "mixed_float16"


@pytest.mark.parametrize(
    ("policy", "flags", "expected"),
    [
        ("mixed_bfloat16", {"avx2"}, "the CPU has no avx512_bf16 or amx_bf16"),
        ("mixed_bfloat16", {"amx_bf16"}, ""),
        ("mixed_bfloat16", set(), ""),
        ("mixed_float16", {"avx512_bf16"}, "the CPU has no avx512_fp16"),
        ("mixed_float16", {"avx512_fp16"}, ""),
        ("float32", set(), ""),
    ],
)
def test_a_type_that_the_cpu_emulates_is_said_to_be_slow(
    policy: str, flags: set, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (cpu, devices):
        monkeypatch.setattr(module, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(tensorflow, "onednn", lambda: True)
    monkeypatch.setattr(devices, "device", lambda: ("CPU", "a CPU"))
    assert devices.emulation(policy) == expected
    monkeypatch.setattr(devices, "device", lambda: ("GPU", "a GPU"))
    assert devices.emulation(policy) == ""


def test_versions_and_commit() -> None:
    versions = provenance.versions("tensorflow")
    assert versions["keras"].startswith("3.") and versions["tensorflow"].startswith("2.")


def test_the_commit_is_of_the_checkout_that_holds_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that pip installed inside another project's checkout has no commit."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "provenance.py").touch()
    subprocess.run([*git, "add", "provenance.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site-packages/provenance.py"))
    assert provenance.git_commit() is None
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert re.fullmatch("[0-9a-f]{40}", provenance.git_commit() or "")
    (tmp_path / "provenance.py").write_text("changed")
    assert (provenance.git_commit() or "").endswith("+changes")


def test_a_git_that_hangs_is_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.2)
    assert provenance.git_commit() is None


@pytest.mark.parametrize(
    ("machine", "backend", "given", "expected"),
    [
        ("x86_64", None, None, "1"),
        ("AMD64", "tensorflow", None, "1"),
        ("x86_64", None, "0", "0"),
        ("aarch64", None, None, None),
        ("x86_64", "jax", None, None),
    ],
)
def test_onednn_is_asked_for_on_x86_unless_the_user_says_no(
    machine: str,
    backend: str | None,
    given: str | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """With an empty module in TensorFlow's place: `start_keras` does nothing if it is there."""
    (tmp_path / "tensorflow.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    for name, value in (("KERAS_BACKEND", backend), ("TF_ENABLE_ONEDNN_OPTS", given)):
        monkeypatch.setenv(name, value or "")  # so that it is put back
        if value is None:
            monkeypatch.delenv(name)
    (tmp_path / "jax.py").touch()
    startup.start_keras()
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == given  # too late: it was imported already
    monkeypatch.delitem(sys.modules, "tensorflow")
    startup.start_keras()
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == expected


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="oneDNN is chosen on x86 alone"
)
@pytest.mark.parametrize(("asked", "expected"), [(None, "True"), ("0", "False")])
def test_tensorflow_uses_onednn_unless_the_user_says_no(asked: str | None, expected: str) -> None:
    """TensorFlow itself says what it uses: on a CPU without AVX512_VNNI its default is no."""
    changed = ("TF_ENABLE_ONEDNN_OPTS", "KERAS_BACKEND")
    variables = {k: v for k, v in os.environ.items() if k not in changed}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from keras_resnet.commands.startup import start_keras; start_keras(); "
            "from keras_resnet.training import devices; print(devices.onednn())",
        ],
        cwd=Path(__file__).resolve().parents[2],
        env=variables if asked is None else {**variables, "TF_ENABLE_ONEDNN_OPTS": asked},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == expected
