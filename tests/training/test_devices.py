"""What `--precision auto` chooses on a CPU, and why; oneDNN; batches of evaluations; the recorded commit."""

import platform
import re
import subprocess

import numpy as np
import pytest

from keras_resnet.runs import provenance
from keras_resnet.training import backends, cpu, devices
from tests.helpers import python


@pytest.mark.parametrize(
    ("policy", "flags", "fast", "reason"),
    [
        ("mixed_bfloat16", {"avx2", "avx512f"}, False, "the CPU has no avx512_bf16 or amx_bf16"),
        ("mixed_bfloat16", {"amx_bf16"}, True, "natively (amx_bf16)"),
        ("mixed_float16", {"avx512_bf16"}, False, "the CPU has no avx512_fp16"),
    ],
)
def test_16_bits_on_a_cpu(policy, flags, fast, reason, monkeypatch):
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(devices, "onednn", lambda: True)
    assert devices.native(policy)[0] is fast and reason in devices.native(policy)[1]
    if policy == "mixed_bfloat16":
        assert devices.precision("auto")[0] == (policy if fast else "float32")
    assert devices.precision(policy) == (policy, "as asked for")
    monkeypatch.setattr(devices, "onednn", lambda: False)
    assert devices.precision("auto") == ("float32", "TensorFlow runs without oneDNN on the CPU")


def test_the_commit_is_of_the_checkout_that_holds_the_code(tmp_path, monkeypatch):
    """A copy that pip installed inside another project's checkout has no commit."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "provenance.py").touch()
    subprocess.run([*git, "add", "provenance.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)

    def commit_of(file):
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / file))
        provenance.git_commit.cache_clear()  # as in another process
        return provenance.git_commit() or ""

    assert commit_of("site-packages/provenance.py") == ""
    assert re.fullmatch("[0-9a-f]{40}", commit_of("provenance.py"))
    (tmp_path / "provenance.py").write_text("changed")
    assert re.fullmatch("[0-9a-f]{40}", provenance.git_commit()), "kept while a process runs"
    assert commit_of("provenance.py").endswith("+changes")
    monkeypatch.undo()
    provenance.git_commit.cache_clear()


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="oneDNN is chosen on x86 alone"
)
@pytest.mark.parametrize(("asked", "expected"), [(None, "True"), ("0", "False")])
def test_tensorflow_uses_onednn_unless_the_user_says_no(asked, expected):
    """TensorFlow itself says what it uses: on a CPU without AVX512_VNNI its default is no."""
    code = (
        "from keras_resnet.commands.startup import start_keras; start_keras(); "
        "from keras_resnet.training import devices; print(devices.onednn())"
    )
    done = python("-c", code, **({"TF_ENABLE_ONEDNN_OPTS": asked} if asked else {}))
    assert done.stdout.strip() == expected, done.stderr


def test_large_images_are_evaluated_a_few_at_a_time():
    """So that a layer's output has the same size in memory, whatever that of the images is."""
    for side, count in (32, 500), (64, 500), (128, 125), (224, 40), (4096, 1):
        images = np.broadcast_to(np.uint8(0), (600, side, side, 3))
        assert backends.evaluation_batch(images) == count
