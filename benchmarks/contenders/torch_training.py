"""Training in PyTorch alone: the same net, recipe and augmentation, in eager mode.

Chosen in PyTorch's favor: images are padded once, before training; crop and flip are one gather of bytes
per batch, cheaper than the usual transforms in loader processes; nothing is written or printed.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.contenders.torch_net import Net
from benchmarks.worker import Turns
from keras_resnet.data import datasets

PAD = 4
SIDE = 32 + 2 * PAD


def run(spec: dict[str, Any], turns: Turns) -> None:
    """Train with the spec's `depth`, `batch_size`, `dataset` and `data_dir`.

    `precision` is `"float32"`, or `"bfloat16"` for autocast with channels-last memory.
    """
    torch.manual_seed(0)
    bfloat16, batch_size = spec["precision"] == "bfloat16", spec["batch_size"]
    data = datasets.load(spec["dataset"], spec["data_dir"])
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    layout = torch.channels_last if bfloat16 else torch.contiguous_format
    net = Net(spec["depth"]).to(memory_format=layout).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    padded = np.empty((len(data.train_images), SIDE, SIDE, 3), np.uint8)
    padded[:] = mean.round().to(torch.uint8).numpy()
    padded[:, PAD:-PAD, PAD:-PAD] = data.train_images
    pixels = torch.from_numpy(padded).view(-1, 3)
    labels = torch.from_numpy(data.train_labels.astype(np.int64))
    axis = torch.arange(32)
    random = np.random.default_rng(0)
    order = np.empty(0, np.int64)
    turns.facts |= {"precision": spec["precision"], "versions": {"torch": torch.__version__}}

    def augmented(index: torch.Tensor) -> torch.Tensor:
        """A random crop and flip per image; uint8 `(N, 32, 32, 3)`."""
        rows = axis + torch.randint(2 * PAD + 1, (batch_size, 1))
        flip = torch.randint(2, (batch_size, 1)) == 1
        shift = torch.randint(2 * PAD + 1, (batch_size, 1))
        columns = torch.where(flip, axis.flip(0), axis) + shift
        place = ((index * SIDE)[:, None] + rows) * SIDE
        return pixels[place[:, :, None] + columns[:, None, :]]

    def update() -> float:
        nonlocal order
        if len(order) < batch_size:
            order = random.permutation(len(labels))
        index, order = torch.from_numpy(order[:batch_size]), order[batch_size:]
        x = ((augmented(index).float() - mean) / std).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=layout)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = net(x)
        loss = functional.cross_entropy(logits.float(), labels[index])
        loss.backward()
        optimizer.step()
        return loss.item()

    turns.repeat(update)
