"""The weights alone, under the names of akamaster's PyTorch ResNet: write them, and read them back.

https://github.com/akamaster/pytorch_resnet_cifar10 puts half of a shortcut's zero channels first, ours are
all last: the channels of stages 2 and 3 are written in its order.
"""

import json
from pathlib import Path

import keras
import numpy as np

from keras_resnet.convert.checkpoint import read_checkpoint
from keras_resnet.convert.matching import LEAVES
from keras_resnet.convert.weights import channel_order, convert, layers_of
from keras_resnet.errors import UserError
from keras_resnet.export.signature import Predict
from keras_resnet.nets.describe import describe, normalization_of

FILE = "model.safetensors"


def write(net: keras.Model, path: Path) -> None:
    """Write the file `path`. Raises UserError where the net is not one of akamaster's."""
    from safetensors.numpy import save

    facts, normalization = describe(net), normalization_of(net)
    if (facts["model"], facts["shortcut"]) != ("resnet", "zeropad") or normalization is None:
        raise UserError(
            "the format safetensors is for this package's resnets with shortcut zeropad. Received: "
            f"{facts['model'] or net.name}, shortcut {facts['shortcut']}; leave it out of `formats`"
        )
    order = {stage: np.argsort(theirs) for stage, theirs in channel_order("split").items()}
    kernel, bias = net.get_layer("head_dense").get_weights()
    tensors = {"linear.weight": kernel[order[3]].T, "linear.bias": bias}
    for conv, bn, out, into in layers_of(net, order):
        weights = conv.get_weights()[0][:, :, into][..., out]
        tensors[f"{_path(conv.name)}.weight"] = weights.transpose(3, 2, 0, 1)
        for leaf, values in zip(LEAVES["bn"], bn.get_weights(), strict=True):
            tensors[f"{_path(bn.name)}.{leaf}"] = values[out]
    tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    # One entry: the library writes several in another order in each process.
    mean, std = (normalization / 255).tolist()
    metadata = {"normalization": json.dumps({"mean": mean, "std": std, "padding": "split"})}
    path.write_bytes(save(tensors, metadata))  # `save_file` lets nobody but the owner read the file


def load(path: Path) -> Predict:
    """Open the file as our converter does."""
    read, size = read_checkpoint(path), (None, None, 3)
    padding = read.padding or "end"
    net = convert(read.tensors, padding=padding, mean=read.mean, std=read.std, input_shape=size)
    return lambda images: {"probabilities": np.asarray(net(images.astype("float32")))}


def _path(layer: str) -> str:
    """`layer2.0.bn1` for `stage2_block1_bn1`, `conv1` for `stem_conv`."""
    if layer.startswith("stem_"):
        return f"{layer.removeprefix('stem_')}1"
    stage, block, name = layer.split("_")
    return f"layer{stage[-1]}.{int(block.removeprefix('block')) - 1}.{name}"
