"""Nets, run folders and snippets of cards that the tests of the export use."""

import importlib.util
import json

import keras
import PIL.Image
from keras import layers

from keras_resnet.data import constants
from tests import helpers
from tests.helpers import python

CLASSES = constants.SYNTHETIC_CLASSES


def make_net(**options):
    mean, std = constants.NORMALIZATION["synthetic"]
    return helpers.make_net(mean=mean, std=std, **options)


def another_classifier(logits=True, classes=5):
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


def make_run(folder, net):
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


def run_snippets(folder, image, place):
    """Run each Python snippet of a card as printed, without this package: heading -> what it printed."""
    for item in folder.iterdir():
        (place / item.name).symlink_to(item)
    PIL.Image.fromarray(image).save(place / "image.png")
    card, printed = (folder / "MODEL_CARD.md").read_text(), {}
    for section in card.split("\n### ")[1:]:
        heading, _, rest = section.partition("\n")
        code = rest.partition("```python\n")[2].partition("```")[0]
        absent = "keras_resnet" if heading == "Keras" else "keras_resnet keras"
        absent += " tensorflow tf2onnx onnx" if "ONNX" in heading else ""
        if heading == "PyTorch" and importlib.util.find_spec("torch") is None:
            continue
        alone = {"PYTHONPATH": "", "PYTHONWARNINGS": "ignore"}
        done = python("-c", code, cwd=place, absent=absent, **alone)
        assert done.returncode == 0, f"{heading}: {done.stderr}"
        printed[heading] = done.stdout
    assert card.count("```python") >= len(printed) > 0
    return printed
