"""The residual net of section 4.2 in PyTorch alone."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from keras_resnet.data.constants import CIFAR10_MEAN, CIFAR10_STD


def convolution(channels: int, filters: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class Block(nn.Module):
    """Two 3x3 convolutions and option A's shortcut."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        first = [convolution(channels, filters, stride), nn.BatchNorm2d(filters), nn.ReLU(True)]
        self.layers = nn.Sequential(*first, convolution(filters, filters), nn.BatchNorm2d(filters))
        self.stride, self.missing = stride, filters - channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        if self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.missing))
        return functional.relu(y + x, inplace=True)


class Net(nn.Module):
    """Normalized images `(N, 3, 32, 32)` in, logits `(N, 10)` out."""

    def __init__(self, depth: int):
        super().__init__()
        layers, channels = [convolution(3, 16), nn.BatchNorm2d(16), nn.ReLU(True)], 16
        for stage, filters in enumerate((16, 32, 64)):
            for index in range((depth - 2) // 6):
                layers.append(Block(channels, filters, 2 if stage and not index else 1))
                channels = filters
        self.layers, self.linear = nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.layers(x).mean((2, 3)))

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
