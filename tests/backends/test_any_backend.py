"""Whatever Keras's backend is: the same commands, the same files, the same numbers.

`.ci/run` runs these, tests/nets/test_golden.py and the killing of tests/training/test_faults.py three times:
with TensorFlow, and with JAX and PyTorch in environments that have no TensorFlow.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_resnet
import train as command
from keras_resnet.commands import evaluate, terminal
from keras_resnet.data import synthetic
from keras_resnet.runs.folder import RunFolder
from keras_resnet.training import backends, devices

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
BACKEND = keras.backend.backend()
FLAGS = [
    "--depth=8", "--dataset=synthetic", "--val-size=500", "--steps=200", "--eval-every=50",
    "--batch-size=64", "--precision=float32", "--name=run",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run that was trained on this backend."""
    output = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SYNTHETIC_SIZES", (4_000, 500))
        assert terminal.run(lambda: command.main([*FLAGS, f"--output-dir={output}"])) == 0
    return output / "run/seed-0"


def test_a_small_net_learns(finished: Path) -> None:
    folder = RunFolder(finished)
    config, results, rows = folder.read_config(), folder.read_results(), folder.read_metrics()
    assert config is not None and results is not None
    assert config["backend"] == results["backend"] == BACKEND
    assert results["test_error"] < 60  # chance: 90
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert [row["step"] for row in rows] == [50, 100, 150, 200]
    assert list((finished / "tensorboard").glob("events.out.tfevents.*"))


def test_the_trained_net_is_what_was_tested(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saved in float32 with the last weights; `evaluate` opens it and finds the run's test error."""
    monkeypatch.setattr(synthetic, "SYNTHETIC_SIZES", (4_000, 500))
    error = json.loads((finished / "results.json").read_text())["test_error"]
    assert terminal.run(lambda: evaluate.main(["--model", str(finished)])) == 0
    assert f"{error:.2f} %" in capsys.readouterr().out


def test_the_shipped_net_has_its_published_error(cifar10) -> None:
    net = keras_resnet.resnet(20, weights="cifar10")
    probabilities = net.predict(cifar10.test_images, batch_size=500, verbose=0)
    error = 100 * np.mean(probabilities.argmax(axis=1) != cifar10.test_labels)
    published = next(net for net in keras_resnet.zoo.list() if net.name == "resnet20").test_error
    # An image whose two best classes are equal to seven digits may go either way.
    assert abs(error - published) < 0.015


def test_tensorflow_is_imported_where_it_is_the_backend_alone(tmp_path: Path) -> None:
    script = """
import sys
from keras_resnet.commands import startup
startup.start_keras()
import keras_resnet
from keras_resnet.data import synthetic
synthetic.SYNTHETIC_SIZES = (300, 100)
config = keras_resnet.TrainConfig(
    depth=8, dataset="synthetic", steps=4, val_size=100, batch_size=8, output_dir=sys.argv[1]
)
keras_resnet.train(config)
keras_resnet.Classifier.load(sys.argv[1] + "/resnet8-synthetic/seed-0/model.keras")
print("tensorflow" in sys.modules)
"""
    found = subprocess.run(
        [sys.executable, "-c", script, tmp_path], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == str(BACKEND == "tensorflow")


def test_a_run_of_another_backend_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run/seed-0"
    folder.mkdir(parents=True)
    config = json.loads((finished / "config.json").read_text())
    other = "jax" if BACKEND != "jax" else "torch"
    (folder / "config.json").write_text(json.dumps({**config, "backend": other}))
    assert terminal.run(lambda: command.main([*FLAGS, f"--output-dir={tmp_path}"])) == 2
    err = capsys.readouterr().err
    assert f"begun on Keras's backend {other}" in err and err.count("\n") == 1
    assert sorted(p.name for p in folder.iterdir()) == ["config.json"]


@pytest.mark.skipif(BACKEND == "jax", reason="JAX trains on several devices")
def test_several_devices_need_jax(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*FLAGS, "--devices=2", f"--output-dir={tmp_path}"]
    assert terminal.run(lambda: command.main(arguments)) == 2
    assert "--devices must be 1" in capsys.readouterr().err


@pytest.mark.skipif(
    BACKEND == "tensorflow", reason="tests/training/test_devices.py has TensorFlow's"
)
@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [("gpu", (7, 5), "float32"), ("gpu", (9, 0), "mixed_bfloat16"), ("other", (0, 0), "auto")],
)
def test_precision_of_devices(
    kind: str, capability: tuple, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as a CPU can tell: what JAX and PyTorch say of such a device leads to the right choice."""
    if BACKEND == "jax":
        import jax

        other = "TPU", "a device", "mixed_bfloat16"
        there = SimpleNamespace(
            platform="tpu" if kind == "other" else "gpu",
            compute_capability=".".join(map(str, capability)),
            device_kind="a device",
        )
        monkeypatch.setattr(jax, "devices", lambda: [there])
    else:
        import torch

        other = "MPS", "the Mac's GPU", "float32"
        device = SimpleNamespace(type="mps" if kind == "other" else "cuda")
        monkeypatch.setattr(keras.ops, "zeros", lambda shape: SimpleNamespace(device=device))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a device")
    hardware = backends.current().hardware()
    if kind == "other":
        assert (*hardware[:2], devices.precision("auto")[0]) == other
    else:
        assert hardware[:3] == ("GPU", "a device", capability[0])
        assert devices.precision("auto")[0] == expected
