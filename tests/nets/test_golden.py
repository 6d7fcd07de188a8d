"""Our optimizer and nets against PyTorch's numbers, which golden/make_golden.py made."""

import re

import keras
import numpy as np
import pytest

import keras_resnet
from tests.helpers import GOLDEN, golden_state, logits_of

NETS = ("zeropad8", "projection8", "plain8", "zeropad20")
BN_WEIGHTS = ("weight", "bias", "running_mean", "running_var")


def our_name(module):
    """Name of our layer for a PyTorch module of make_golden.Net."""
    if match := re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", module):
        stage, block, rest = match.groups()
        rest = {"shortcut.0": "shortcut", "shortcut.1": "shortcut_bn"}.get(rest, rest)
        return f"stage{stage}_block{int(block) + 1}_{rest}"
    return {"conv1": "stem_conv", "bn1": "stem_bn", "linear": "head_dense"}[module]


def build(golden, name):
    """Our net of that name with PyTorch's weights and constants; every weight finds its place."""
    kind, depth = re.fullmatch(r"([a-z]+)(\d+)", name).groups()
    constants = {key: [float(v) * 255 for v in golden[key]] for key in ("mean", "std")}
    if kind == "plain":
        net = keras_resnet.plain(int(depth), **constants)
    else:
        net = keras_resnet.resnet(int(depth), shortcut=kind, **constants)
    weights = golden_state(golden, depth, kind == "projection")
    for module in dict.fromkeys(key.rpartition(".")[0] for key in weights):
        net.get_layer(our_name(module)).set_weights(our_form(weights, module))
    assert sum(v.size for v in weights.values()) == net.count_params()
    return net


def our_form(weights, module):
    """The arrays of one PyTorch module as our layer takes them."""
    kernel = weights[f"{module}.weight"]
    if kernel.ndim == 4:
        return [kernel.transpose(2, 3, 1, 0)]
    if kernel.ndim == 2:
        return [kernel.T, weights[f"{module}.bias"]]
    return [weights[f"{module}.{leaf}"] for leaf in BN_WEIGHTS]


def running(golden, name, net):
    """Running mean and variance of our BNs, in the order of PyTorch's state_dict."""
    keys = [k for k in golden_state(golden, re.sub(r"\D", "", name)) if "running_mean" in k]
    ours = [our_name(key.removesuffix(".running_mean")) for key in keys]
    there = {layer.name: layer for layer in net.layers}
    return np.concatenate([w for n in ours if n in there for w in there[n].get_weights()[2:]])


@pytest.mark.parametrize("name", ["kernel", "gamma", "bias"])
def test_sgd_makes_the_same_20_updates_as_torch(name):
    with np.load(GOLDEN / "sgd.npz") as file:
        initial, gradients, expected = (
            file[f"{name}/{k}"] for k in ("initial", "gradients", "weights")
        )
    variable = keras.Variable(initial)
    optimizer = keras_resnet.SGD(learning_rate=0.1, momentum=0.9, coupled_weight_decay=1e-4)
    optimizer.build([variable])
    for gradient, weights in zip(gradients, expected, strict=True):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), weights, rtol=0, atol=1e-6)
    assert len(gradients) == 20


@pytest.mark.parametrize("name", NETS)
def test_forward_equals_torch(golden, name):
    net, images = build(golden, name), golden["images"]
    logits = keras.ops.convert_to_numpy(logits_of(net)(images, training=False))
    np.testing.assert_allclose(logits, golden[f"{name}/logits"], rtol=0, atol=1e-4)
    probabilities = keras.ops.convert_to_numpy(net(images, training=False))
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(golden[f"{name}/logits"]))
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_training_mode_uses_and_keeps_the_statistics_that_torch_does(golden, name):
    net = build(golden, name)
    logits = keras.ops.convert_to_numpy(logits_of(net)(golden["images"], training=True))
    np.testing.assert_allclose(logits, golden[f"{name}/training_logits"], rtol=0, atol=1e-4)
    # In the smallest maps a biased variance would be 0.26 % (of the tenth that is new) off.
    found = running(golden, name, net)
    np.testing.assert_allclose(found, golden[f"{name}/running"], rtol=1e-5, atol=1e-5)


def test_two_training_steps_equal_torch(golden):
    net = build(golden, "zeropad8")
    model = logits_of(net)
    model.compile(
        keras_resnet.SGD(learning_rate=0.1, momentum=0.9, coupled_weight_decay=1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    losses = []
    for _ in range(2):
        losses.append(float(model.train_on_batch(golden["images"], golden["labels"])))
        model.reset_metrics()
    np.testing.assert_allclose(losses, golden["train/losses"], rtol=1e-5)
    names = [key.removeprefix("train/") for key in golden if re.match(r"train/.*\.", key)]
    assert len(names) == 7 + 7 * 4 + 2  # 7 convs, 7 BNs, the dense layer
    for name in names:
        module, _, leaf = name.rpartition(".")
        value = net.get_layer(our_name(module)).get_weights()[BN_WEIGHTS.index(leaf)]
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        expected = golden[f"train/{name}"]
        np.testing.assert_allclose(value.ravel()[::7], expected, rtol=0, atol=2e-5, err_msg=name)


def test_twenty_updates_on_given_crops_have_the_losses_of_torch(golden):
    """Crops, batch statistics, gradients and optimizer together, against PyTorch in float64."""
    with np.load(GOLDEN / "updates.npz") as file:
        given = dict(file)
    image, draw = keras.Input((32, 32, 3), name="pixels"), keras.Input((3,), dtype="int32")
    mean = [float(v) * 255 for v in golden["mean"]]
    crop = keras_resnet.RandomPadCrop(4, fill=mean, flip=True)
    model = keras.Model([image, draw], logits_of(build(golden, "zeropad8"))(crop(image, draw=draw)))
    model.compile(
        keras_resnet.SGD(learning_rate=0.001, momentum=0.9, coupled_weight_decay=1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",
    )
    losses = []
    for index, draws in zip(given["index"], given["draw"], strict=True):
        images = given["images"][index].astype("float32")
        losses.append(float(model.train_on_batch([images, draws], given["labels"][index])))
        model.reset_metrics()
    np.testing.assert_allclose(losses, given["losses"], rtol=0, atol=5e-5)


def test_logits_of_a_thousand_real_images_equal_torch(golden, cifar10):
    with np.load(GOLDEN / "real.npz") as file:
        expected = file["logits"]
    model = logits_of(build(golden, "zeropad20"))
    logits = model.predict(cifar10.test_images[:1000], batch_size=250, verbose=0)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=5e-5)
