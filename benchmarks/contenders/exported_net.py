"""Not a contender: writes the files that those of `deployed` open, of a net that was not trained.

Speed does not depend on the weights' values.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
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
    net = keras_resnet.resnet(spec["depth"], mean=data.mean, std=data.std)
    spread_outputs(net, data.train_images)
    net.save(target / "net.keras")
    constants = (np.array(data.mean, np.float32), np.array(data.std, np.float32))
    np.savez(target / "weights.npz", *constants, *net.get_weights())
    command = [sys.executable, "-m", "keras_resnet", "export", str(target / "net.keras")]
    command += ["--quantize", "--output", str(target / "export"), "--dataset", data.name]
    command += ["--data-dir", spec["data_dir"]] if spec["data_dir"] else []
    command += ["--formats", "onnx", *(["litert"] if spec["litert"] else [])]
    subprocess.run(command, check=True)
    images = data.train_images[:IMAGES]
    np.save(target / "images.npy", images)
    session = onnxruntime.InferenceSession(target / "export/model.onnx")
    np.save(target / "reference.npy", session.run(["probabilities"], {"image": images})[0])
    turns.answer({})


def spread_outputs(net: keras.Model, images: np.ndarray) -> None:
    """Make the outputs of an untrained net differ between images, as a trained one's do.

    As it is built, a deep net gives all images the same class with a probability of 1, and a contender
    that computes something else would not be noticed. So batch normalization gets the statistics of
    images, and the logits a mean of 0 and a standard deviation of 2.
    """
    for start in range(0, 1280, 128):
        net(images[start : start + 128].astype(np.float32), training=True)
    head = net.get_layer("head_dense")
    features = keras.Model(net.input, head.input).predict_on_batch(images[:IMAGES])
    kernel, _ = head.get_weights()
    kernel -= kernel.mean(1, keepdims=True)  # what all logits share, the softmax takes away
    kernel *= 2 / (features @ kernel).std(0)
    head.set_weights([kernel, -(features @ kernel).mean(0)])
