"""Makes the golden numbers that tests/nets/test_golden.py and tests/convert/ compare with.

    python tests/golden/make_golden.py [TEST_IMAGES.npy]       (10 seconds on one core)

TEST_IMAGES.npy holds the first 1,000 images of CIFAR-10's test set, uint8 (1000, 32, 32, 3), in the order
of tensorflow_datasets' files; without it, real.npz stays as it is. It needs PyTorch and safetensors; those
in the repository were made with torch 2.13.0+cpu on x86-64. Elsewhere the last float32 digits differ.

Nothing here imports `keras_resnet`: the network is written from section 4.2 of the paper, with
`torch.nn`'s own layers and defaults, so that a mistake of ours is not made twice.

sgd.npz                    20 updates of `torch.optim.SGD` from given gradients
updates.npz                20 updates of a net on given crops of images, and the losses (see `make_updates`)
real.npz                   logits of a net for real images
nets.npz                   weights, images, and what the nets make of them (see `make_nets`)
resnet8_split.safetensors  a checkpoint as it is met in the wild, and
resnet8_split.npz          images with the probabilities of that net
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

FOLDER = Path(__file__).parent
# CIFAR-10's channel means and standard deviations, as PyTorch users write them.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
SAMPLE = 7  # every 7th weight after training is stored


class Shortcut(nn.Module):
    """Option A of section 3.3: every second pixel, zero channels at the end or on both sides."""

    def __init__(self, filters: int, padding: str):
        super().__init__()
        quarter = filters // 4
        self.pad = (quarter, quarter) if padding == "split" else (0, 2 * quarter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, *self.pad))


class Block(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int, shortcut: str, padding: str):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.residual = shortcut != "plain"
        self.shortcut = nn.Sequential()
        if stride > 1 and shortcut == "zeropad":
            self.shortcut = Shortcut(filters, padding)
        elif (stride > 1 and shortcut == "projection") or shortcut == "projection-all":
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.shortcut(x) if self.residual else y)


class Net(nn.Module):
    """The net of section 4.2; uint8 images [N, 32, 32, 3] in, logits out.

    shortcut: "zeropad", "projection", "projection-all" or "plain".
    """

    def __init__(
        self, depth: int, shortcut: str = "zeropad", padding: str = "end", num_classes: int = 10
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = 16
        for stage, filters in enumerate((16, 32, 64), start=1):
            blocks = []
            for index in range((depth - 2) // 6):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(Block(channels, filters, stride, shortcut, padding))
                channels = filters
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.permute(0, 3, 1, 2).to(self.linear.weight.dtype) / 255
        mean, std = (torch.tensor(values, dtype=x.dtype)[:, None, None] for values in (MEAN, STD))
        x = functional.relu(self.bn1(self.conv1((x - mean) / std)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def randomize(net: nn.Module, seed: int) -> nn.Module:
    """Give every weight and statistic a random value, such that activations stay near 1."""
    random = torch.Generator().manual_seed(seed)
    for key, value in net.state_dict().items():
        if key.endswith("num_batches_tracked"):
            value.fill_(1000)
        elif value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=random)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=random)
        elif key.endswith("weight"):
            value.uniform_(0.4, 1.2, generator=random)
        else:
            value.normal_(0, 0.2, generator=random)
    return net


def images(count: int, seed: int) -> torch.Tensor:
    """Random patches of 8x8, so that images differ, and pixels, so that one pixel off matters."""
    random = torch.Generator().manual_seed(seed)
    patches = torch.rand((count, 4, 4, 3), generator=random)
    patches = patches.repeat_interleave(8, 1).repeat_interleave(8, 2)
    pixels = torch.rand((count, 32, 32, 3), generator=random)
    return ((patches + pixels) * 128).to(torch.uint8)


def make_sgd() -> dict[str, np.ndarray]:
    """`<name>/initial`, `<name>/gradients`, `<name>/weights` (after each update), three tensors."""
    random = torch.Generator().manual_seed(1)
    shapes = {"kernel": (3, 3, 4, 8), "gamma": (16,), "bias": (10,)}
    weights = {k: nn.Parameter(torch.randn(s, generator=random)) for k, s in shapes.items()}
    gradients = {k: torch.randn((20, *s), generator=random) / 10 for k, s in shapes.items()}
    result = {f"{k}/initial": v.detach().clone() for k, v in weights.items()}
    result |= {f"{k}/gradients": v for k, v in gradients.items()}
    steps: dict[str, list[torch.Tensor]] = {k: [] for k in shapes}
    optimizer = torch.optim.SGD(weights.values(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for step in range(20):
        for key, value in weights.items():
            value.grad = gradients[key][step]
        optimizer.step()
        for key, value in weights.items():
            steps[key].append(value.detach().clone())
    result |= {f"{k}/weights": torch.stack(v) for k, v in steps.items()}
    return {key: value.numpy() for key, value in result.items()}


def make_nets() -> dict[str, np.ndarray]:
    """What five nets make of the same images.

    weights<depth>/<PyTorch's key>  float32; or int8, with a float32 <the same>/scale beside it
        (weight = int8 * scale, in float32). The nets of 8 layers share theirs; shortcut.* is the
        projection's.
    images, mean, std               uint8 pixels; the constants in units of 0..1
    <net>/logits                    eval mode
    <net>/stage2_conv1              eval mode: first stride-2 conv's output, 2 images, 4 channels
    <net>/training_logits           training mode: statistics of the batch
    <net>/running                   running mean and variance of all BNs after that one pass
    labels, train/losses, train/*   two training steps of zeropad8, every 7th weight afterwards
    """
    result: dict[str, np.ndarray] = {}
    for depth, shortcut in ((8, "projection"), (20, "zeropad")):
        net = randomize(Net(depth, shortcut), seed=depth)
        for key, value in net.state_dict().items():
            if value.ndim > 1:
                scale = value.abs().max() / 127
                small = (value / scale).round().to(torch.int8)
                result[f"weights{depth}/{key}"] = small.numpy()
                result[f"weights{depth}/{key}/scale"] = scale.numpy()
            elif value.ndim:
                result[f"weights{depth}/{key}"] = value.numpy().copy()
    batch = images(6, seed=3)
    result |= {"images": batch.numpy(), "mean": np.array(MEAN), "std": np.array(STD)}
    for name, *arguments in (
        ("zeropad8", 8, "zeropad"),
        ("split8", 8, "zeropad", "split"),
        ("projection8", 8, "projection"),
        ("plain8", 8, "plain"),
        ("zeropad20", 20, "zeropad"),
    ):
        net = load(result, *arguments).eval()
        seen: list[torch.Tensor] = []
        hook = net.layer2[0].conv1.register_forward_hook(lambda m, i, o, seen=seen: seen.append(o))
        with torch.no_grad():
            result[f"{name}/logits"] = net(batch).numpy()
            hook.remove()
            result[f"{name}/stage2_conv1"] = seen[0][:2, :4].permute(0, 2, 3, 1).numpy().copy()
            result[f"{name}/training_logits"] = net.train()(batch).numpy()
        running = [v.flatten() for k, v in net.state_dict().items() if "running" in k]
        result[f"{name}/running"] = torch.cat(running).numpy()

    net = load(result, 8, "zeropad").train()
    labels = torch.arange(6) * 3 % 10
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(batch), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    result |= {"labels": labels.numpy(), "train/losses": np.array(losses, np.float32)}
    for key, value in net.state_dict().items():
        if value.ndim:
            result[f"train/{key}"] = value.detach().flatten()[::SAMPLE].numpy().copy()
    return result


def make_updates(nets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Twenty updates of zeropad8 with augmentation, in float64.

    images, labels  uint8 (40, 32, 32, 3), and their classes
    index, draw     of each update: which images; row, column (modulo 9) and mirroring (modulo 2)
    losses          of each update, before it
    """
    random = torch.Generator().manual_seed(9)
    batch, labels = images(40, seed=8), torch.arange(40) % 10
    index = torch.randint(0, 40, (20, 16), generator=random)
    draw = torch.randint(0, 162, (20, 16, 3), generator=random)
    net = load(nets, 8, "zeropad").double().train()
    # At higher rates float32 alone is 1e-4 off after twenty updates: roundings grow with each.
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
    border = torch.tensor(MEAN, dtype=torch.float64) * 255
    losses = []
    for step in range(20):
        crops = []
        for image, (row, column, flip) in zip(batch[index[step]], draw[step].tolist(), strict=True):
            padded = border.repeat(40, 40, 1)
            padded[4:36, 4:36] = image.double()
            crop = padded[row % 9 : row % 9 + 32, column % 9 : column % 9 + 32]
            crops.append(crop.flip(1) if flip % 2 else crop)
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(torch.stack(crops)), labels[index[step]])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {
        "images": batch.numpy(),
        "labels": labels.numpy().astype(np.int32),
        "index": index.numpy().astype(np.int32),
        "draw": draw.numpy().astype(np.int32),
        "losses": np.array(losses),
    }


def make_real(nets: dict[str, np.ndarray], path: str) -> dict[str, np.ndarray]:
    """Logits of zeropad20 for real images, computed in float64."""
    net = load(nets, 20, "zeropad").double().eval()
    with torch.no_grad():
        return {"logits": net(torch.from_numpy(np.load(path))).float().numpy()}


def load(nets: dict[str, np.ndarray], depth: int, *arguments: str) -> Net:
    """A net with the weights that `make_nets` stores."""
    net = Net(depth, *arguments)
    for key, value in net.state_dict().items():
        name = f"weights{depth}/{key}"
        if value.ndim:
            value.copy_(torch.from_numpy(nets[name] * nets.get(f"{name}/scale", np.float32(1))))
    return net


def make_checkpoint() -> dict[str, np.ndarray]:
    """Write a float16 safetensors file of a split-padded net under DataParallel, 5 classes."""
    net = randomize(Net(8, "zeropad", "split", num_classes=5), seed=5).half().float().eval()
    state = {f"module.{key}": value.clone() for key, value in net.state_dict().items()}
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
        FOLDER / "resnet8_split.safetensors",
    )
    batch = images(4, seed=6)
    with torch.no_grad():
        probabilities = net(batch).softmax(1)
    return {"images": batch.numpy(), "probabilities": probabilities.numpy()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.savez_compressed(FOLDER / "sgd.npz", **make_sgd())
    nets = make_nets()
    np.savez_compressed(FOLDER / "nets.npz", **nets)
    np.savez_compressed(FOLDER / "updates.npz", **make_updates(nets))
    if len(sys.argv) > 1:
        np.savez_compressed(FOLDER / "real.npz", **make_real(nets, sys.argv[1]))
    np.savez_compressed(FOLDER / "resnet8_split.npz", **make_checkpoint())
    for file in sorted(FOLDER.glob("*.[ns]*")):
        print(f"{file.stat().st_size:>9,} bytes  {file.name}")
