"""The PyTorch contenders: the same net, recipe and augmentation, as PyTorch likes them written.

Eager mode, as PyTorch programs for CIFAR-10 are written. What was chosen in PyTorch's favor: images
are padded once, before training; crop and flip are one gather of bytes for the batch (the usual
per-image transforms in loader processes would cost it more, on 2 cores above all); `zero_grad`
drops the gradients; nothing is written or printed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.worker import Turns

PAD = 4
MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)  # of CIFAR-10, pixel units
# Keras's names of the variables of a layer, and PyTorch's.
VARIABLES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


class Block(nn.Module):
    """Two 3x3 convolutions and option A's shortcut."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.stride, self.missing = stride, filters - channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.missing))
        return functional.relu(y + x, inplace=True)


class Net(nn.Module):
    """The residual net of section 4.2: normalized images `(N, 3, 32, 32)` in, logits out."""

    def __init__(self, depth: int):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks, channels = [], 16
        for stage, filters in enumerate((16, 32, 64)):
            for index in range((depth - 2) // 6):
                blocks.append(Block(channels, filters, 2 if stage and not index else 1))
                channels = filters
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(64, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn(self.conv(x)), inplace=True)
        return self.linear(self.blocks(x).mean((2, 3)))


def contend(spec: dict[str, Any], turns: Turns) -> NoReturn:
    """Run the contender that `spec` names: `torch_float32`, `torch_bfloat16`, `torch_inference`."""
    torch.manual_seed(0)
    images = np.load(Path(spec["folder"]) / "images.npy", mmap_mode="r")
    labels = np.load(Path(spec["folder"]) / "labels.npy").astype(np.int64)
    net = Net(spec["depth"])
    turns.facts["parameters"] = sum(p.numel() for p in net.parameters())
    turns.facts["versions"] = {"torch": torch.__version__}
    mean, scale = torch.tensor(MEAN), torch.tensor(STD)
    if spec["contender"] == "torch_inference":
        _infer(net, torch.from_numpy(images[: spec["batch"]].copy()), mean, scale, turns)
    _train(net, images, labels, mean, scale, spec["batch"], spec["contender"], turns)


def _infer(
    net: Net, images: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, turns: Turns
) -> NoReturn:
    predict = _probabilities(net, mean, scale)
    with torch.inference_mode():
        turns.forever(lambda: predict(images).numpy())


def _probabilities(
    net: Net, mean: torch.Tensor, scale: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """From uint8 pixels `(N, 32, 32, 3)` to probabilities."""
    net.eval()

    def predict(images: torch.Tensor) -> torch.Tensor:
        x = ((images.float() - mean) / scale).permute(0, 3, 1, 2).contiguous()
        return net(x).softmax(1)

    return predict


def deployed(weights: dict[str, np.ndarray], compiled: bool) -> Callable[[np.ndarray], np.ndarray]:
    """A net with the weights that `keras_nets.save_weights` wrote, eager or through `torch.compile`."""
    mean, scale = (torch.from_numpy(weights.pop(key)) for key in ("mean", "std"))
    convolutions = sum("_conv" in name for name in weights)
    net = Net(convolutions + 1)
    _load(net, weights)
    predict = _probabilities(net, mean, scale)
    if compiled:
        predict = torch.compile(predict)

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        return predict(torch.from_numpy(images)).numpy()

    return run


def _load(net: Net, weights: dict[str, np.ndarray]) -> None:
    """Give `net` the weights of Keras's, by their paths there; each must find its place."""
    layers = {"stem_conv": "conv", "stem_bn": "bn", "head_dense": "linear"}
    per_stage = len(net.blocks) // 3
    for k, block in enumerate(net.blocks):
        path = f"stage{k // per_stage + 1}_block{k % per_stage + 1}"
        layers |= {f"{path}_{name}": f"blocks.{k}.{name}" for name, _ in block.named_children()}
    state = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    for name, value in weights.items():
        layer, variable = name.split("/")
        # Keras: (height, width, in, out) and (in, out); PyTorch: (out, in, height, width), (out, in).
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        state[f"{layers[layer]}.{VARIABLES[variable]}"] = torch.from_numpy(value.copy())
    net.load_state_dict(state)


def _train(
    net: Net,
    images: np.ndarray,
    labels: np.ndarray,
    mean: torch.Tensor,
    scale: torch.Tensor,
    batch: int,
    contender: str,
    turns: Turns,
) -> NoReturn:
    bfloat16 = contender == "torch_bfloat16"
    layout = torch.channels_last if bfloat16 else torch.contiguous_format
    net.to(memory_format=layout).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    side = 32 + 2 * PAD
    padded = np.empty((len(images), side, side, 3), np.uint8)
    padded[:] = mean.round().to(torch.uint8).numpy()
    padded[:, PAD:-PAD, PAD:-PAD] = images
    pixels = torch.from_numpy(padded).view(-1, 3)
    targets = torch.from_numpy(labels)
    axis = torch.arange(32)
    random = np.random.default_rng(0)
    order = np.empty(0, np.int64)

    def augmented(index: torch.Tensor) -> torch.Tensor:
        """Pad-crop and flip, one draw per image; uint8 `(N, 32, 32, 3)`."""
        rows = axis + torch.randint(2 * PAD + 1, (batch, 1))
        flip = torch.randint(2, (batch, 1)) == 1
        columns = torch.where(flip, axis.flip(0), axis) + torch.randint(2 * PAD + 1, (batch, 1))
        place = ((index * side)[:, None] + rows) * side
        return pixels[place[:, :, None] + columns[:, None, :]]

    def update() -> float:
        nonlocal order
        if len(order) < batch:
            order = random.permutation(len(images))
        index, order = torch.from_numpy(order[:batch]), order[batch:]
        x = ((augmented(index).float() - mean) / scale).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=layout)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = net(x)
        loss = functional.cross_entropy(logits.float(), targets[index])
        loss.backward()
        optimizer.step()
        return loss.item()

    turns.forever(update)
