"""The residual net of section 4.2 in PyTorch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from keras_resnet.data.constants import CIFAR10_MEAN, CIFAR10_STD


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
    """Normalized images `(N, 3, 32, 32)` in, logits `(N, 10)` out."""

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

    def load_keras_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Take the weights of our Keras net, which come in the same order."""
        names = [name for name in self.state_dict() if not name.endswith("num_batches_tracked")]
        for name, value in zip(names, weights, strict=True):
            # Keras: (height, width, in, out), (in, out). PyTorch: (out, in, height, width), (out, in).
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            self.state_dict()[name].copy_(torch.from_numpy(value.copy()))


def classifier(weights: Sequence[np.ndarray], compiled: bool) -> Callable[[np.ndarray], np.ndarray]:
    """From uint8 pixels `(N, 32, 32, 3)` to probabilities `(N, 10)`, eager or by `torch.compile`.

    `weights` are those of our Keras net for CIFAR-10.
    """
    net = Net(sum(value.ndim == 4 for value in weights) + 1)
    net.load_keras_weights(weights)
    net.eval()
    mean, std = torch.tensor(CIFAR10_MEAN), torch.tensor(CIFAR10_STD)

    def predict(images: torch.Tensor) -> torch.Tensor:
        x = ((images.float() - mean) / std).permute(0, 3, 1, 2).contiguous()
        return net(x).softmax(1)

    if compiled:
        predict = torch.compile(predict)

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        return predict(torch.from_numpy(images)).numpy()

    return run
