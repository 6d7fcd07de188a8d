"""Not a contender: writes the files that those of `deployed` open, of one of our trained nets."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import keras_resnet
from benchmarks.worker import Turns
from keras_resnet.data import datasets

IMAGES = 256


def run(spec: dict[str, Any], turns: Turns) -> None:
    """Write to the folder `target`: export/, images.npy, weights.npz for PyTorch, reference.npy."""
    target = Path(spec["target"])
    target.mkdir()
    data = datasets.load(spec["dataset"], spec["data_dir"])
    net = keras_resnet.resnet(spec["depth"], weights="cifar10")
    net.save(target / "net.keras")
    np.savez(target / "weights.npz", *net.get_weights())
    command = [sys.executable, "-m", "keras_resnet", "export", str(target / "net.keras")]
    command += ["--quantize", "--output", str(target / "export"), "--dataset", data.name]
    command += ["--data-dir", spec["data_dir"]] if spec["data_dir"] else []
    command += ["--formats", "onnx", *({"litert"} - set(spec["without"]))]
    subprocess.run(command, check=True)
    images = data.train_images[:IMAGES]
    np.save(target / "images.npy", images)
    session = onnxruntime.InferenceSession(target / "export/model.onnx")
    np.save(target / "reference.npy", session.run(["probabilities"], {"image": images})[0])
    turns.answer({})
