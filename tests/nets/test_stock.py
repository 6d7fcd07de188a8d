"""The net that is saved: Keras's own layers alone, the same numbers, opened where this package is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.nets.describe import describe, recognize_dataset
from keras_resnet.nets.family import SHORTCUTS
from keras_resnet.nets.stock import copy_weights, stock
from tests.helpers import make_net, random_images

ENVIRONMENTS = Path(os.environ.get("KERAS_RESNET_ENVIRONMENTS", "/root/w"))
PYTHONS = {
    "tensorflow": Path(sys.executable),
    "jax": ENVIRONMENTS / "jaxenv/bin/python",
    "torch": ENVIRONMENTS / "torchenv/bin/python",
}
# With Keras alone: run where no folder holds keras_resnet.
SCRIPT = """
import sys, keras, numpy as np
net = keras.models.load_model("model.keras")
assert "keras_resnet" not in sys.modules and keras.backend.backend() == sys.argv[1]
logits = keras.Model(net.input, net.get_layer("head_dense").output)
np.save("logits.npy", logits.predict(np.load("images.npy"), verbose=0))
"""


def logits_of(net: keras.Model, images: np.ndarray) -> np.ndarray:
    return keras.Model(net.input, net.get_layer("head_dense").output).predict(images, verbose=0)


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_the_same_logits_from_layers_of_keras(shortcut: str) -> None:
    net = make_net(shortcut=shortcut)
    rebuilt = stock(net)
    for layer in rebuilt.layers:
        assert type(layer).__module__.startswith("keras.") and layer.dtype_policy.name == "float32"
    images = random_images(32, 32, 32)
    np.testing.assert_allclose(logits_of(rebuilt, images), logits_of(net, images), atol=1e-6)
    assert describe(rebuilt) == describe(net)
    assert describe(net)["shortcut"] == shortcut
    assert recognize_dataset(rebuilt) == recognize_dataset(net) == "cifar10"
    names = {layer.name for layer in net.layers}
    assert names <= {layer.name for layer in rebuilt.layers}
    trainable = [[v.shape for v in n.trainable_variables] for n in (net, rebuilt)]
    assert trainable[0] == trainable[1]
    assert stock(rebuilt) is rebuilt
    copy = keras_resnet.resnet(8, shortcut=shortcut, seed=1)
    copy_weights(rebuilt, copy)
    np.testing.assert_array_equal(copy.predict(images), net.predict(images))


def test_odd_sizes_plain_nets_and_mixed_precision() -> None:
    images = random_images(8, 31, 45)
    net = make_net(input_shape=(31, 45, 3))
    np.testing.assert_allclose(logits_of(stock(net), images), logits_of(net, images), atol=1e-6)
    mixed = make_net(input_shape=(31, 45, 3), dtype="mixed_bfloat16")
    copy_weights(net, mixed)
    np.testing.assert_allclose(logits_of(stock(mixed), images), logits_of(net, images), atol=1e-6)
    assert describe(stock(keras_resnet.plain(8)))["model"] == "plain"


def test_other_models_are_left_as_they_are() -> None:
    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    assert stock(net) is net
    described = describe(net)
    assert (described["model"], described["depth"], described["num_classes"]) == (None, None, 2)
    assert recognize_dataset(net) is None


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of tf2onnx
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="ONNX is made on TensorFlow")
@pytest.mark.parametrize("shortcut", ["zeropad", "zeropad-maxpool"])
def test_onnx_needs_no_squeeze_and_no_channels_of_zeros(shortcut: str, tmp_path: Path) -> None:
    import onnx

    net = stock(make_net(shortcut=shortcut))
    net(random_images(1, 32, 32))  # ONNX wants a model that was called
    net.export(tmp_path / "net.onnx", format="onnx", opset_version=18, verbose=False)
    nodes = onnx.load(tmp_path / "net.onnx").graph.node
    assert not {"Squeeze", "Pad", "Concat", "Slice"} & {node.op_type for node in nodes}


@pytest.mark.slow
@pytest.mark.parametrize("backend", PYTHONS)
def test_load_model_opens_it_without_this_package(backend: str, tmp_path: Path) -> None:
    if not PYTHONS[backend].exists():
        pytest.skip(f"no environment with {backend}: {PYTHONS[backend]}")
    net = make_net(shortcut="zeropad-maxpool")
    images = random_images(32, 32, 32)
    stock(net).save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHONS[backend], "-c", SCRIPT, backend],
        cwd=tmp_path, env={**environment, "KERAS_BACKEND": backend}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    tolerance = 1e-6 if backend == keras.backend.backend() else 1e-5
    np.testing.assert_allclose(
        np.load(tmp_path / "logits.npy"), logits_of(net, images), rtol=0, atol=tolerance
    )
