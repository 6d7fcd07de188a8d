"""Files of `torch.save`, as they are met in the wild; no code in them runs. Needs PyTorch."""

import argparse
import os

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="reads files of torch.save; PyTorch is optional")

from keras_resnet.convert import checkpoint
from keras_resnet.convert.checkpoint import read_checkpoint
from keras_resnet.convert.weights import convert
from tests.golden import make_golden

CONSTANTS = {"mean": make_golden.MEAN, "std": make_golden.STD}
WRAPPERS = {
    "plain.pt": lambda state: state,
    "wrapped.th": lambda state: {"state_dict": state, "best_acc": np.float64(92.1)},
    "averaged.bin": lambda state: {
        "n_averaged": state["bn1.num_batches_tracked"],
        **{f"module.{k}": v for k, v in state.items()},
    },
    "model.ckpt": lambda state: {"epoch": 7, "model": state, "args": argparse.Namespace(lr=0.1)},
    "half.pt": lambda state: {
        k: v.bfloat16().double() if v.is_floating_point() else v for k, v in state.items()
    },
}


@pytest.fixture
def line(tmp_path, refused):
    """The line in which the conversion of a content, saved by torch, ends."""

    def line(content, *flags, **options):
        if not isinstance(content, bytes):
            torch.save(content, tmp_path / "net.pt", **options)
        else:
            (tmp_path / "net.pt").write_bytes(content)
        return refused("convert", tmp_path / "net.pt", "--output", tmp_path / "out.keras", *flags)

    return line


@pytest.mark.parametrize(
    ("depth", "shortcut", "padding"),
    [(20, "zeropad", "split"), (14, "projection-all", "end"), (8, "plain", "end")],
)
def test_files_of_torch(tmp_path, depth, shortcut, padding):
    net = make_golden.Net(depth, shortcut, padding, num_classes=7)
    net = make_golden.randomize(net, seed=depth).bfloat16().float().eval()
    images = make_golden.images(4, seed=1)
    with torch.no_grad():
        expected = net(images).softmax(1).numpy()
    assert expected.std(axis=0).max() > 5e-4  # the images are told apart
    kind = {"model": "plain"} if shortcut == "plain" else {"shortcut": shortcut}
    for name, wrap in WRAPPERS.items():
        torch.save(wrap(net.state_dict()), tmp_path / name)
        tensors = read_checkpoint(tmp_path / name).tensors
        ours = convert(tensors, depth, padding=padding, **kind, **CONSTANTS)
        found = keras.ops.convert_to_numpy(ours(images.numpy(), training=False))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=name)


def test_a_checkpoint_with_an_optimizer_and_two_nets(tmp_path, line):
    nets = [make_golden.randomize(make_golden.Net(8), seed) for seed in (1, 2)]
    optimizer = torch.optim.SGD(nets[0].parameters(), lr=0.1, momentum=0.9)
    nets[0](make_golden.images(2, 0)).sum().backward()
    optimizer.step()
    content = {"model": nets[0].state_dict(), "optimizer": optimizer.state_dict()}
    assert "Received: 'model'" in line(content, "--key", "ema")
    assert "layer1.0.conv1.weight" in read_checkpoint(tmp_path / "net.pt").tensors
    both = {**content, "ema": {"shadow": nets[1].state_dict()}}
    assert "Received: 'model', 'ema.shadow'" in line(both)
    found = read_checkpoint(tmp_path / "net.pt", key="ema.shadow")
    weights = nets[1].linear.weight.detach().numpy()
    np.testing.assert_array_equal(found.tensors["linear.weight"], weights)
    assert found.ignored == ["model", "optimizer"]


class Trap:
    """What unpickling it would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_classes_are_named_and_their_code_does_not_run(tmp_path, line, zipped):
    trap = f"{os.mkdir.__module__}.mkdir"
    for name, content in {
        "torch.nn.modules.linear.Linear": torch.nn.Linear(2, 2),
        trap: {"state_dict": Trap(tmp_path / "sprung")},
    }.items():
        error = line(content, _use_new_zipfile_serialization=zipped)
        assert f"of the classes {name}, which could not be read without" in error
    assert not (tmp_path / "sprung").exists()


def test_bad_files_of_torch(tmp_path, line, monkeypatch):
    assert "Received: none" in line({"weight": torch.zeros(3)})
    whole = (tmp_path / "net.pt").read_bytes()
    assert "must be a whole file of torch.save" in line(whole[:700])
    place = whole.index(b"weight")
    for broken in (whole[:place] + b"\1" + whole[place + 1 :], b"\x80\x02}q\x00."):
        assert "could not be read" in line(broken)
    # A view can claim more than the file holds.
    bomb = {"conv.weight": torch.zeros(1).expand(2**20, 2**10, 3, 3)}
    assert "the tensors have more than" in line(bomb)
    monkeypatch.setattr(checkpoint, "LIMIT", len(whole) - 1)
    assert "must have at most" in line(whole)
