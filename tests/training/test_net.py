"""Which net a run trains: the user's own, or one that starts from trained weights; and which is saved."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_resnet
from keras_resnet import TrainConfig
from keras_resnet.training import callbacks
from keras_resnet.training.net import build_net, logits_of
from keras_resnet.training.progress import ProgressBar
from keras_resnet.training.signals import Interrupted
from tests.helpers import REPOSITORY, call, random_images

pytestmark = pytest.mark.usefixtures("small_synthetic")
SMALL = [
    "train", "--dataset=synthetic", "--val-size=300", "--batch-size=32", "--steps=40",
    "--eval-every=10", "--checkpoint-every=10", "--precision=float32",
]  # fmt: skip
# The net of docs/training.md, and two that do not fit.
PAGE = (REPOSITORY / "docs/training.md").read_text()
NETS = (
    re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    + """
def wrong(input_shape, num_classes, seed):
    return keras.Sequential([keras.Input(input_shape), layers.Flatten(), layers.Dense(3)])


def two(input_shape, num_classes):
    pass


def code(input_shape, num_classes, seed):
    first = layers.Lambda(lambda x: x)
    return keras.Sequential([keras.Input(input_shape), first, *build(input_shape, num_classes, seed).layers])


def sigmoid(input_shape, num_classes, seed):
    last = layers.Dense(num_classes, activation="sigmoid")
    return keras.Sequential([keras.Input(input_shape), layers.Rescaling(1 / 255), layers.Flatten(), last])


def strange(input_shape, num_classes, seed):
    net = build(input_shape, num_classes, seed)
    return keras.Model(net.inputs, net.outputs, name="my net")


def frozen(input_shape, num_classes, seed):
    net = build(input_shape, num_classes, seed)
    net.trainable = False
    return net


def over_the_batch(input_shape, num_classes, seed):
    net = build(input_shape, num_classes, seed)
    return keras.Sequential([keras.Input(input_shape), *net.layers[:-1], layers.Softmax(axis=0)])


def logits(input_shape, num_classes, seed):
    return keras.Sequential([keras.Input(input_shape), *build(input_shape, num_classes, seed).layers[:-1]])


def hidden_softmax(input_shape, num_classes, seed):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, build(input_shape, num_classes, seed)(inputs))
"""
)


def weights(folder):
    net = keras.models.load_model(folder / "model.keras")
    return [weight.tobytes() for weight in net.get_weights()]


def stop_at(step, patch):
    """Send this process a SIGTERM at an update."""
    update = ProgressBar.on_train_batch_end

    def stopping(bar, batch, logs):
        update(bar, batch, logs)
        if bar.progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(ProgressBar, "on_train_batch_end", stopping)


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """A working directory with nets of the user's."""
    (tmp_path / "my_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # so that it is gone from the path afterwards
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return tmp_path


@pytest.mark.parametrize("function", ["build", "logits"])
def test_no_seed_makes_logits_look_like_probabilities(function, in_folder):
    """Of two classes, the logits of a new net often lie between 0 and 1."""
    images, labels = random_images(8, 8, 8), np.arange(8) % 2
    data = keras_resnet.Dataset.from_arrays(images, labels)
    for seed in range(8):
        config = TrainConfig(model=f"my_nets:{function}", dataset="images", batch_size=4, seed=seed)
        assert build_net(config, data, "float32").output_shape == (None, 2)


@pytest.mark.parametrize("recipe", ["paper", "fast"])
def test_a_net_of_one_s_own_trains_resumes_reports_and_exports(
    recipe, in_folder, monkeypatch, capsys
):
    flags = ["--model=my_nets:build", f"--recipe={recipe}"]
    assert call(*SMALL, *flags, "--name=whole") == 0
    with monkeypatch.context() as patch:
        stop_at(23, patch)
        assert call(*SMALL, *flags) == 128 + signal.SIGTERM
    assert call(*SMALL, *flags) == 0
    suffix = "" if recipe == "paper" else "-fast"
    folder = in_folder / f"experiments/my_nets-build-synthetic{suffix}/seed-0"
    # Dropout too goes on where it was.
    assert weights(folder) == weights(in_folder / "experiments/whole/seed-0")
    results = json.loads((folder / "results.json").read_text())
    assert results["model"] == "my_nets:build" and "depth" not in results
    if recipe == "fast":
        assert keras_resnet.Classifier.load(folder).predict(np.zeros((1, 32, 32, 3), "uint8")).shape
        assert call("report", folder, "--output=report") == 0
        assert "my_nets:build" in Path("report/results.md").read_text()
        assert call("export", folder, "--formats", "onnx") == 0
        assert (folder / "export/model.onnx").exists()


def test_nets_and_weights_that_do_not_fit(in_folder, refused):
    for flags, message in (
        ("--model=nowhere:build", "No module named 'nowhere'"),
        ("--model=my_nets:nothing", "my_nets has no function nothing"),
        ("--model=my_nets.py:build", "module:function, without .py"),
        ("--model=my_nets:two", "(input_shape, num_classes, seed): too many positional arguments"),
        ("--model=my_nets:wrong", "Received: Sequential from (None, 32, 32, 3) to (None, 3)"),
        ("--model=my_nets:code", "can be saved in float32 and opened again"),
        ("--model=my_nets:hidden_softmax", "Received: probabilities that come from something else"),
        ("--model=my_nets:over_the_batch", "Received: probabilities that come from something else"),
        ("--model=my_nets:sigmoid", "Received: probabilities that come from something else"),
        ("--model=my_nets:strange", "Received: the name 'my net'"),
        ("--model=my_nets:frozen", "Received: no trainable variables"),
        (
            "--weights=plain20 --shortcut=projection",
            "--shortcut must be left out for --model plain",
        ),
        ("--keep=best --val-size=0", "--keep must be last where --val-size is 0"),
        ("--model=my_nets", "--model must be one of resnet, plain, or module:function"),
        ("--weights=nowhere", "nowhere"),
        ("--freeze", "--freeze must be given with --weights"),
        ("--weights=resnet20 --model=my_nets:build", "--weights must be left out"),
        ("--weights=resnet20 --depth=56", "--depth must be 20, as in --weights. Received: 56"),
    ):
        assert message in refused(*SMALL, *flags.split(), "--name=x")
        assert not list(in_folder.rglob("config.json"))


def test_training_starts_from_a_trained_net(tmp_path, capsys):
    """Frozen, only the dense layer changes; for the same classes all of the net is taken."""
    flags = [f"--output-dir={tmp_path}", "--steps=4", "--recipe=fast"]
    assert call(*SMALL, *flags, "--weights=resnet20", "--freeze") == 0
    out = capsys.readouterr().out
    assert "its dense layer is new" in out and "frozen: all but its dense layer" in out
    assert "650 parameters" in out
    folder = tmp_path / "frozen-resnet20-synthetic-fast/seed-0"
    assert json.loads((folder / "results.json").read_text())["depth"] == 20
    trunk = keras_resnet.resnet(20, weights="cifar10")
    tuned = keras.models.load_model(folder / "model.keras")
    for layer in trunk.layers:
        pairs = zip(layer.get_weights(), tuned.get_layer(layer.name).get_weights(), strict=False)
        same = [np.array_equal(before, after) for before, after in pairs]
        assert same == [layer.name != "head_dense"] * len(layer.weights), layer.name
    assert call(*SMALL, *flags, f"--weights={folder}", "--seed=1", "--val-size=100") == 0
    said = capsys.readouterr()
    assert "took all of resnet20" in said.out
    assert re.search(r"note: \d+ of the 100 validation images were among those that", said.err)
    parts = f"from-{folder.parent.name}-seed-0-synthetic-fast/seed-1"
    changed = keras.models.load_model(tmp_path / parts / "model.keras").get_layer("stem_conv")
    assert not np.array_equal(changed.kernel, trunk.get_layer("stem_conv").kernel)


@pytest.mark.parametrize(("keep", "saved"), [("best", 2), (None, 3)])
def test_the_net_of_the_lowest_validation_error_is_kept_across_a_stop(
    keep, saved, tmp_path, monkeypatch, capsys
):
    measured, seen = iter([(0.5, 30.0), (0.9, 10.0), (0.8, 10.0), (0.7, 20.0)]), []
    remember = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append(remember.model.get_weights())
    )
    monkeypatch.setattr(callbacks, "loss_and_error", lambda *_: next(measured))
    config = keras_resnet.TrainConfig(
        depth=8, dataset="synthetic", val_size=300, batch_size=32, steps=40, eval_every=10,
        checkpoint_every=10, output_dir=str(tmp_path), name="x", keep=keep,
    )  # fmt: skip
    with monkeypatch.context() as patch:
        stop_at(25, patch)
        with pytest.raises(Interrupted):
            keras_resnet.train(config, callbacks=[remember])
    keras_resnet.train(config, callbacks=[remember])
    folder = tmp_path / "x/seed-0"
    results = json.loads((folder / "results.json").read_text())
    assert results["val_error"] == (10 if keep else 20) and results.get("saved_step", 40) == 10 * (
        saved + 1
    )
    said = f"the net of update {10 * (saved + 1)} (keep {keep or 'last'})"
    assert said in capsys.readouterr().out
    net = keras.models.load_model(folder / "model.keras")
    trained = [w for x in net.layers if "shortcut" not in x.name for w in x.get_weights()]
    for expected, found in zip(seen[saved], trained, strict=True):
        np.testing.assert_array_equal(expected, found)


@pytest.mark.parametrize("softmax", [True, False])
def test_the_loss_is_that_of_the_probabilities(softmax):
    """Of a dense layer with its own softmax, and of logits."""
    head = layers.Dense(5, activation="softmax" if softmax else None)
    net = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), head])
    net = keras.Model(net.inputs[0], net.outputs[0])
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    outputs, logits = net.predict(images, verbose=0), logits_of(net).predict(images, verbose=0)
    expected = outputs if softmax else np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
