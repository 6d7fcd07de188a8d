"""Nets and run folders that the tests of the export use, and a process without some modules."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import PIL.Image
from keras import layers

import keras_resnet
from keras_resnet.data import constants

CLASSES = constants.SYNTHETIC_CLASSES


def make_net(**options) -> keras.Model:
    """A net whose BN statistics and biases are such as training leaves them: all different."""
    mean, std = constants.NORMALIZATION["synthetic"]
    build = keras_resnet.plain if options.pop("plain", False) else keras_resnet.resnet
    net = build(8, mean=mean, std=std, **options)
    rng = np.random.default_rng(1)
    for layer in net.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.gamma.shape
            gamma, variance = rng.uniform(0.5, 1.5, shape), rng.uniform(0.5, 2, shape)
            beta, mean = rng.normal(0, 0.3, shape), rng.normal(0, 0.3, shape)
            layer.set_weights([gamma, beta, mean, variance])
    kernel, bias = net.get_layer("head_dense").get_weights()
    net.get_layer("head_dense").set_weights([kernel, rng.normal(0, 0.3, bias.shape)])
    return net


def another_classifier(logits: bool = True, classes: int = 5) -> keras.Model:
    """A net that this package did not make, of 24 x 40 pixels."""
    convolution = layers.Conv2D(8, 3, padding="same", activation="relu")
    inner = [keras.Input((24, 40, 3)), layers.RandomFlip(seed=0), convolution]
    base = keras.Sequential([*inner, layers.MaxPooling2D()], name="base")
    image = keras.Input((24, 40, 3))
    x = layers.Normalization(mean=[120.0, 120, 120], variance=[4000.0, 4000, 4000])(image)
    x = layers.DepthwiseConv2D(3)(base(x))
    x = layers.LayerNormalization()(x)
    x = layers.Dense(classes)(layers.Flatten()(x))
    return keras.Model(image, x if logits else layers.Activation("softmax")(x))


def make_run(folder: Path, net: keras.Model) -> Path:
    """A finished run folder on the synthetic data set."""
    folder.mkdir(parents=True)
    net.save(folder / "model.keras")
    config = {
        "settings": {"dataset": "synthetic", "depth": 8, "seed": 3, "steps": 100, "data_dir": None},
        "class_names": list(CLASSES),
        "precision": "float32",
        "command": "python train.py --depth 8 --dataset synthetic",
        "versions": {"keras": "3"},
        "device": {"kind": "CPU", "name": "test"},
        "git_commit": "abc",
    }
    (folder / "config.json").write_text(json.dumps(config))
    results = {"test_error": 12.34, "seconds": 7.0, "git_commit": "abc", "steps": 100}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def python(
    code: str, folder: Path, *absent: str, **environment: str
) -> subprocess.CompletedProcess:
    """Run code in a process of its own, in which the modules `absent` cannot be imported."""
    hide = "".join(f"sys.modules[{name!r}] = None; " for name in absent)
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {hide}\n{code}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", "PYTHONWARNINGS": "ignore", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_snippets(folder: Path, image: np.ndarray, place: Path) -> dict[str, str]:
    """Run each Python snippet of a card as printed, without this package: heading -> what it printed."""
    for item in folder.iterdir():
        (place / item.name).symlink_to(item)
    PIL.Image.fromarray(image).save(place / "image.png")
    card, printed = (folder / "MODEL_CARD.md").read_text(), {}
    for section in card.split("\n### ")[1:]:
        heading, _, rest = section.partition("\n")
        code = rest.partition("```python\n")[2].partition("```")[0]
        absent = ["keras_resnet"] if heading == "Keras" else ["keras_resnet", "keras"]
        absent += ["tensorflow", "tf2onnx", "onnx"] if "ONNX" in heading else []
        if heading == "PyTorch" and importlib.util.find_spec("torch") is None:
            continue
        done = python(code, place, *absent)
        assert done.returncode == 0, f"{heading}: {done.stderr}"
        printed[heading] = done.stdout
    assert card.count("```python") >= len(printed) > 0
    return printed
