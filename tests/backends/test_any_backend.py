"""Whatever Keras's backend is: the same commands, the same files, the same numbers.

`.ci/run` runs these, tests/nets/test_golden.py and the killing of tests/training/test_faults.py three times:
with TensorFlow, and with JAX and PyTorch in environments that have no TensorFlow.
"""

import json
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.data import synthetic
from keras_resnet.inference.zoo import WEIGHTS
from keras_resnet.nets.stock import stock
from keras_resnet.runs.folder import RunFolder
from keras_resnet.training import backends, devices
from tests.helpers import call, logits_of, make_net, python, random_images

BACKEND = keras.backend.backend()
TRAIN = [
    "train", "--depth=8", "--dataset=synthetic", "--val-size=500", "--steps=200", "--eval-every=50",
    "--batch-size=64", "--precision=float32", "--name=run",
]  # fmt: skip
# With Keras alone: this package cannot be imported.
SCRIPT = """
import sys, keras, numpy as np
for name in ("own", "zoo"):
    net = keras.models.load_model(f"{name}.keras")
    logits = keras.Model(net.input, net.get_layer("head_dense").output)
    np.save(f"{name}.npy", logits.predict(np.load("images.npy"), verbose=0))
assert keras.backend.backend() == sys.argv[1]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a small run that was trained on this backend."""
    output = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SYNTHETIC_SIZES", (4_000, 500))
        assert call(*TRAIN, f"--output-dir={output}") == 0
    return output / "run/seed-0"


def test_a_small_net_learns(finished, monkeypatch, capsys):
    folder = RunFolder(finished)
    config, results, rows = folder.read_config(), folder.read_results(), folder.read_metrics()
    assert config is not None and results is not None
    assert config["backend"] == results["backend"] == BACKEND
    assert results["test_error"] < 60  # chance: 90
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert [row["step"] for row in rows] == [50, 100, 150, 200]
    assert list((finished / "tensorboard").glob("events.out.tfevents.*"))
    # What was saved is what was tested.
    monkeypatch.setattr(synthetic, "SYNTHETIC_SIZES", (4_000, 500))
    assert call("evaluate", "--model", finished) == 0
    assert f"{results['test_error']:.2f} %" in capsys.readouterr().out


def test_the_shipped_net_has_its_published_error(cifar10):
    net = keras_resnet.resnet(20, weights="cifar10")
    probabilities = net.predict(cifar10.test_images, batch_size=500, verbose=0)
    error = 100 * np.mean(probabilities.argmax(axis=1) != cifar10.test_labels)
    published = next(net for net in keras_resnet.zoo.list() if net.name == "resnet20").test_error
    # An image whose two best classes are equal to seven digits may go either way.
    assert abs(error - published) < 0.015


def test_tensorflow_is_imported_where_it_is_the_backend_alone(tmp_path):
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
    found = python("-c", script, tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == str(BACKEND == "tensorflow")


def test_load_model_opens_a_saved_net_without_this_package(tmp_path):
    """What this backend saved, and a net of the zoo, which TensorFlow saved."""
    nets = {"own": make_net(shortcut="zeropad-maxpool")}
    nets["zoo"] = keras_resnet.resnet(20, weights="cifar10")
    images = random_images(32, 32, 32)
    np.save(tmp_path / "images.npy", images)
    stock(nets["own"]).save(tmp_path / "own.keras")
    shutil.copy(WEIGHTS / "resnet20-cifar10/model.keras", tmp_path / "zoo.keras")
    done = python("-c", SCRIPT, BACKEND, cwd=tmp_path, absent="keras_resnet", PYTHONPATH="")
    assert done.returncode == 0, done.stderr[-2000:]
    for name, net in nets.items():
        expected = logits_of(net).predict(images, verbose=0)
        found = np.load(tmp_path / f"{name}.npy")
        tolerance = 1e-6 if name == "own" else 1e-5
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_a_run_of_another_backend_is_refused(finished, tmp_path, refused):
    folder = tmp_path / "run/seed-0"
    folder.mkdir(parents=True)
    config = json.loads((finished / "config.json").read_text())
    other = "jax" if BACKEND != "jax" else "torch"
    (folder / "config.json").write_text(json.dumps({**config, "backend": other}))
    error = refused(*TRAIN, f"--output-dir={tmp_path}")
    assert f"begun on Keras's backend {other}" in error
    assert sorted(p.name for p in folder.iterdir()) == ["config.json"]


@pytest.mark.skipif(BACKEND == "jax", reason="JAX trains on several devices")
def test_several_devices_need_jax(tmp_path, refused):
    error = refused(*TRAIN, "--devices=2", f"--output-dir={tmp_path}")
    assert "--devices must be 1" in error


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "float32"), ((9, 0), "mixed_bfloat16")]
)
def test_precision_of_gpus(capability, expected, monkeypatch):
    """As far as a CPU can tell: what the backend says of such a GPU leads to the right choice."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        details = {"compute_capability": capability, "device_name": "a device"}
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    elif BACKEND == "jax":
        import jax

        text = ".".join(map(str, capability))
        gpu = SimpleNamespace(platform="gpu", compute_capability=text, device_kind="a device")
        monkeypatch.setattr(jax, "devices", lambda: [gpu])
    else:
        import torch

        tensor = SimpleNamespace(device=SimpleNamespace(type="cuda"))
        monkeypatch.setattr(keras.ops, "zeros", lambda shape: tensor)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a device")
    assert backends.current().hardware()[:3] == ("GPU", "a device", capability[0])
    assert devices.precision("auto")[0] == expected
