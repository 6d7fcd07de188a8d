"""PyTorch checkpoints become our nets: same outputs, any names, and errors instead of guesses.

Most tests need no PyTorch: the weights and the outputs of its nets are in golden/ (made by
golden/make_golden.py). Those that read files of torch.save skip where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import keras_resnet
from keras_resnet.commands import terminal
from keras_resnet.commands.convert import main
from keras_resnet.convert import checkpoint
from keras_resnet.convert.checkpoint import LIMIT, read_checkpoint
from keras_resnet.convert.weights import channel_order, convert
from keras_resnet.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"
FIXTURE = GOLDEN / "resnet8_split.safetensors"
CONSTANTS = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
OPTIONS = {
    "zeropad8": {"depth": 8},
    "split8": {"depth": 8, "padding": "split"},
    "projection8": {"depth": 8, "shortcut": "projection"},
    "plain8": {"depth": 8, "model": "plain"},
    "zeropad20": {"depth": 20},
}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "nets.npz") as file:
        return dict(file)


def state_dict(golden: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """PyTorch's state_dict of one of the golden nets, in PyTorch's order."""
    prefix = f"weights{OPTIONS[name]['depth']}/"
    state = {}
    for key, value in golden.items():
        if key.startswith(prefix) and not key.endswith("/scale"):
            if name != "projection8" and "shortcut" in key:
                continue
            scale = golden.get(f"{key}/scale", np.float32(1))
            state[key.removeprefix(prefix)] = value.astype("float32") * scale
            if key.endswith("running_var"):
                counter = key.removeprefix(prefix).replace("running_var", "num_batches_tracked")
                state[counter] = np.array(1000)
    return state


def check(net: keras.Model, golden: dict[str, np.ndarray], name: str) -> None:
    """The net's logits are those of PyTorch's."""
    logits = keras.Model(net.input, net.get_layer("head_dense").output)
    found = keras.ops.convert_to_numpy(logits(golden["images"], training=False))
    np.testing.assert_allclose(found, golden[f"{name}/logits"], rtol=0, atol=1e-4)


def flags(name: str) -> list[str]:
    """Depth and shortcut are read from the checkpoint."""
    needed = {key: value for key, value in OPTIONS[name].items() if key in ("padding", "model")}
    return [part for key, value in needed.items() for part in (f"--{key}", value)]


# --- without PyTorch ------------------------------------------------------------------------------


def test_the_stored_safetensors_checkpoint(tmp_path, capsys):
    """Written by PyTorch: float16, split padding, `module.` prefixes, 5 classes."""
    output = tmp_path / "net.keras"
    mean, std = (list(map(str, CONSTANTS[name])) for name in ("mean", "std"))
    arguments = [str(FIXTURE), *flags("split8"), "--mean", *mean, "--std", *std]
    arguments += ["--output", str(output)]
    assert main(arguments) == 0
    assert "resnet8, 5 classes, 74,965 trainable parameters" in capsys.readouterr().out
    net = keras.models.load_model(output)
    with np.load(GOLDEN / "resnet8_split.npz") as file:
        found = keras.ops.convert_to_numpy(net(file["images"], training=False))
        np.testing.assert_allclose(found, file["probabilities"], rtol=0, atol=1e-4)
    assert os.listdir(tmp_path) == ["net.keras"]


@pytest.mark.parametrize("name", ["zeropad20", "projection8", "plain8"])
def test_safetensors_with_the_constants_of_its_normalisation(
    golden, name, tmp_path, capsys, monkeypatch
):
    """Lightning's way: a module that normalises, a criterion and metrics beside the net's layers."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))  # no images to choose the padding by
    state = {f"model.{key}": value for key, value in state_dict(golden, name).items()}
    state["normalize.mean"] = np.reshape(CONSTANTS["mean"], (1, 3, 1, 1)).astype("float32")
    state["normalize.std"] = np.reshape(CONSTANTS["std"], (1, 3, 1, 1)).astype("float32")
    state |= {
        "criterion.weight": np.ones(10),
        "train_acc.tp": np.zeros(10, int),
        "n_averaged": np.array(5),
    }
    file, output = tmp_path / "pytorch_model.bin", tmp_path / "net.keras"
    save_file(state, file)
    assert main([str(file), *flags(name), "--output", str(output)]) == 0
    check(keras.models.load_model(output), golden, name)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == (
        "its input's mean is the checkpoint's: 0.4914, 0.4822, 0.4465; ignored: criterion.weight, "
        "n_averaged, train_acc.tp"
    )
    assert ("--padding split" in lines[2]) == (name in ("zeropad8", "zeropad20"))


def test_constants_of_0_to_255_and_flags_come_first(golden, tmp_path):
    state = {n: a.astype(ml_dtypes.bfloat16) for n, a in state_dict(golden, "zeropad8").items()}
    state |= {"mean": np.float32([120, 121, 122]), "std": np.float32([60, 61, 62])}
    save_file(state, tmp_path / "net.safetensors")
    found = read_checkpoint(tmp_path / "net.safetensors")
    assert all(array.dtype == np.float32 for array in found.tensors.values())
    np.testing.assert_allclose(
        [found.mean, found.std], np.array([[120, 121, 122], [60, 61, 62]]) / 255
    )
    output = tmp_path / "net.keras"
    arguments = ["--depth", "8", "--std", "0.1", "0.2", "0.5", "--output", str(output)]
    assert main([str(tmp_path / "net.safetensors"), *arguments]) == 0
    layer = keras.models.load_model(output).get_layer("normalization")
    np.testing.assert_allclose(layer.scale, 1 / (255 * np.array([0.1, 0.2, 0.5])))


@pytest.mark.parametrize("padding", ["end", "split"])
def test_images_choose_the_padding(padding, cifar10, tmp_path, capsys, monkeypatch):
    torch_weights = pytest.importorskip("keras_resnet.export.torch_weights", reason="needs ONNX")
    net = keras_resnet.resnet(20, weights="cifar10")
    monkeypatch.setattr(torch_weights, "channel_order", lambda _: channel_order(padding))
    torch_weights.write(net, tmp_path / "net.safetensors")
    (tmp_path / "images").mkdir()
    for k, image in enumerate(cifar10.train_images[:64]):
        Image.fromarray(image).save(tmp_path / f"images/{k}.png")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    output = tmp_path / "net.keras"
    arguments = [str(tmp_path / "net.safetensors"), "--output", str(output)]
    assert main([*arguments, "--images", str(tmp_path / "images")]) == 0
    said = capsys.readouterr().out
    assert f"padding {padding} fits 64 images" in said and "warning" not in said
    images = cifar10.test_images[:16]
    found = keras.models.load_model(output).predict(images, verbose=0)
    np.testing.assert_allclose(found, net.predict(images, verbose=0), rtol=0, atol=1e-4)
    if padding == "split":
        return
    wrong = ["--mean", "0", "0", "0", "--std", "1", "1", "1"]
    assert main([*arguments, *wrong, "--images", str(tmp_path / "images")]) == 0
    assert "warning: that is far" in capsys.readouterr().out
    with pytest.raises(UserError, match="`images` must be a folder with images"):
        main([*arguments, "--images", str(tmp_path / "nothere")])


STYLES = {  # how others name the layers: (pattern, replacement), applied one after the other
    "conv_bn_modules": [
        (r"^conv1", "features.init_block.conv"),
        (r"^bn1", "features.init_block.bn"),
        (r"layer(\d)\.(\d+)\.(conv|bn)(\d)", r"features.stage\1.unit\2.body.conv\4.\3"),
        (r"layer(\d)\.(\d+)\.shortcut\.0", r"features.stage\1.unit\2.identity_conv.conv"),
        (r"layer(\d)\.(\d+)\.shortcut\.1", r"features.stage\1.unit\2.identity_conv.bn"),
        (r"linear", "output"),
    ],
    "sequential": [
        (r"^conv1", "stem.0"),
        (r"^bn1", "stem.1"),
        (r"layer", "blocks."),
        (r"\.conv1", ".body.0"),
        (r"\.bn1", ".body.1"),
        (r"\.conv2", ".body.3"),
        (r"\.bn2", ".body.4"),
        (r"linear", "classifier.1"),
    ],
    "lists": [
        (r"^conv1", "stem.compressible_conv"),
        (r"^bn1", "stem.batch_norm"),
        (r"\.conv", ".convs."),
        (r"\.bn", ".norms."),
        (r"shortcut\.0", "downsample_conv"),
        (r"shortcut\.1", "downsample_norm"),
    ],
}


def renamed(state: dict[str, np.ndarray], style: str) -> dict[str, np.ndarray]:
    result = {}
    for key, value in state.items():
        for pattern, replacement in STYLES[style]:
            key = re.sub(pattern, replacement, key)
        result[key] = value
    assert len(result) == len(state)
    return result


@pytest.mark.parametrize("order", ["file", "sorted", "shuffled"])
@pytest.mark.parametrize("style", STYLES)
def test_names_of_others(golden, style, order):
    for name in ("projection8", "zeropad20")[: 1 if order == "file" else 2]:
        state = renamed(state_dict(golden, name), style)
        keys = list(state) if order == "file" else sorted(state)
        if order == "shuffled":
            random.Random(1).shuffle(keys)
        check(convert({key: state[key] for key in keys}, **CONSTANTS), golden, name)


def test_names_that_say_nothing(golden):
    """In the order of the file; sorted by such names, it is an error."""
    state = state_dict(golden, "projection8")
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in state))
    random.Random(2).shuffle(words := [f"m{number:03d}" for number in range(len(modules))])
    word = dict(zip(modules, words, strict=True))
    state = {f"{word[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in state.items()}
    check(convert(state, **CONSTANTS), golden, "projection8")
    with pytest.raises(UserError, match="order of the layers cannot be decided"):
        convert(dict(sorted(state.items())))


def test_convs_before_the_bns_of_each_block(golden):
    """Registered conv1, conv2, bn1, bn2: which BN follows which conv, only the names say."""
    state = state_dict(golden, "zeropad8")
    keys = sorted(
        state,
        key=lambda k: (k[:3] == "lin", k[:6] if k[:5] == "layer" else "", "bn" in k),
    )
    check(convert({key: state[key] for key in keys}, **CONSTANTS), golden, "zeropad8")


def test_tenth_block_comes_after_the_second(golden):
    """In the alphabet layer1.10 comes before layer1.2, and all their shapes are alike."""
    state, small = {}, state_dict(golden, "zeropad8")
    for key, value in small.items():
        block = re.match(r"layer(\d)\.0\.(.+)", key)
        for index in range(12 if block else 1):
            name = f"layer{block[1]}.{index}.{block[2]}" if block else key
            if index and block[1] != "1" and block[2] == "conv1.weight":
                value = small[key.replace("conv1", "conv2")]
            state[name] = value.copy()
            if name.endswith("bias"):
                state[name][0] = index
    net = convert(dict(sorted(state.items())), depth=74)
    for stage in (1, 2, 3):
        for index in range(12):
            layer = net.get_layer(f"stage{stage}_block{index + 1}_bn2")
            assert keras.ops.convert_to_numpy(layer.beta)[0] == index


# --- errors ---------------------------------------------------------------------------------------


def put(key, *shape, value=0.0):
    return lambda state: state.__setitem__(key, np.full(shape, value, "float32"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("layer1.0.bn2.running_mean"), r"layer1.0.bn2 has weight \(16,\), bias"),
        (lambda s: s.pop("layer2.0.conv2.weight"), r"\(32, 32, 3, 3\): 1 expected, 0 received"),
        (put("layer1.0.conv1.bias", 16), "layer1.0.conv1 has .*not a conv without bias"),
        (put("mean", 1, 3, 1, 1), r"mean \(1, 3, 1, 1\): not a conv"),
        (put("layer4.0.conv1.weight", 64, 64, 3, 3), "2 received .*layer4.0.conv1"),
        (put("layer3.0.conv2.weight", 64, 64, 5, 5), r"\(64, 64, 5, 5\): 0 expected, 1 received"),
        (put("bn1.bias", 17), r"bn1 has .*bias \(17,\)"),
        (put("linear.weight", 1, 64), "linear has"),
        (put("e\x1b[31mxtra", 3), "e\N{REPLACEMENT CHARACTER}.31mxtra"),
        (put("linear.bias", 10, value=np.nan), "linear .*not finite"),
        (put("bn1.running_var", 16, value=-1), "bn1 .*negative"),
    ],
)
def test_what_does_not_fit_is_listed(golden, change, text):
    state = state_dict(golden, "zeropad8")
    change(state)
    with pytest.raises(UserError, match=text):
        convert(state, depth=8)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("zeropad20", {"depth": 8}, "`depth` must be 20"),
        ("zeropad8", {"shortcut": "projection"}, "`shortcut` must be zeropad"),
        ("projection8", {"shortcut": "zeropad-maxpool"}, "`shortcut` must be projection"),
        ("projection8", {"model": "plain"}, r"\(32, 16, 1, 1\): 0 expected, 1 received"),
    ],
)
def test_options_of_another_net_are_refused(golden, name, options, text):
    with pytest.raises(UserError, match=text):
        convert(state_dict(golden, name), **options)


def test_another_family_is_named_before_single_shapes():
    """ResNet-50: 64 filters of 7x7 in the stem, bottlenecks, up to 2048 filters."""
    state = {"conv1.weight": np.zeros((64, 3, 7, 7)), "fc.weight": np.zeros((10, 2048))}
    for k in range(3):
        state[f"layer{k}.conv1.weight"] = np.zeros((64, 256, 1, 1))
        state[f"layer{k}.conv2.weight"] = np.zeros((64, 64, 3, 3))
        state[f"layer{k}.conv3.weight"] = np.zeros((256, 64, 1, 1))
    with pytest.raises(
        UserError, match="another family of nets, with a stem of 64 .*bottleneck .*256"
    ):
        convert(state)


def test_a_pre_activation_net_is_refused(golden):
    """He et al. 2016: a BN before each conv of a block, and one at the end. Shapes and order are ours."""
    state = state_dict(golden, "zeropad8")
    convs = [name.removesuffix(".weight") for name, value in state.items() if value.ndim == 4]
    following = dict(zip(convs, [*convs[1:], "bn"], strict=True))
    renamed, last = {}, ""
    for name, value in state.items():
        path, _, leaf = name.rpartition(".")
        last = path if path in convs else last
        moved = following[last].replace("conv", "bn")
        renamed[f"{moved}.{leaf}" if "bn" in path else name] = value
    assert len(renamed) == len(state)
    with pytest.raises(UserError, match="a pre-activation net"):
        convert(renamed, depth=8)


@pytest.mark.parametrize(
    "change",
    [
        [(r"layer(\d)\.0", r"layer\1.one"), (r"layer(\d)\.1", r"layer\1.two"),
         (r"layer(\d)\.2", r"layer\1.three")],
        [(r"bn1", "before"), (r"bn2", "after")],
        [(r"\.conv1", ".one"), (r"\.conv2", ".two")],
    ],
    ids=["words for blocks", "words for BNs", "words for convs"],
)  # fmt: skip
def test_order_that_cannot_be_decided_is_an_error(golden, change, monkeypatch):
    monkeypatch.setitem(STYLES, "these", change)
    state = renamed(state_dict(golden, "zeropad20"), "these")
    with pytest.raises(UserError, match="order of the layers cannot be decided"):
        convert(dict(sorted(state.items())), depth=20)
    check(convert(state, depth=20, **CONSTANTS), golden, "zeropad20")  # the file's order


@pytest.fixture
def command(tmp_path, capsys):
    """Run the command, which must end in one line and leave the output as it is; return the line."""

    def run(file, *arguments):
        output = tmp_path / "net.keras"
        before = output.read_bytes() if output.is_file() else None
        argv = [str(file), "--output", str(output), *map(str, arguments)]
        try:
            code = terminal.run(lambda: main(argv))
        except SystemExit as stop:
            code = stop.code
        text = capsys.readouterr().err
        assert code == 2 and text.count("\n") == 1 and text.startswith("error: "), text
        assert text[:-1].isprintable()
        assert (output.read_bytes() if output.is_file() else None) == before
        assert not list(tmp_path.rglob(".tmp-*"))
        return text

    return run


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--depth", "57"], "--depth must be 8"),
        (["--padding", "split", "--model", "plain"], "padding=split is for"),
        (["--mean", "nan", "0", "0"], "--mean must be in units of 0..1"),
        (["--std", "0", "1", "1"], "--std must be in units of 0..1"),
        (["--key", "ema"], "--key is for files of torch.save"),
        (["--output", "net.h5"], "--output must be a .keras file in a folder that exists"),
        (["--dataset", "cifar100"], "--dataset must have the net's 5 classes"),
    ],
)
def test_bad_flags_end_in_one_line(command, arguments, text):
    assert text in command(FIXTURE, *arguments)


def test_bad_files_end_in_one_line(command, tmp_path):
    whole = FIXTURE.read_bytes()
    bad = {
        "missing.safetensors": (None, "No such file"),
        "empty.safetensors": (b"", "must be a whole file of torch.save"),
        "page.pt": (b"<!DOCTYPE html>", "which begins with b'<!DOCTYPE'"),
        "torn.safetensors": (whole[: len(whole) // 2], "could not be read as safetensors"),
        "net.weights.bin": (b"\x89HDF\r\n\x1a\n", "a file of Keras, which needs no conversion"),
    }
    output = tmp_path / "net.keras"
    output.write_bytes(b"an older net")
    for name, (data, text) in bad.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        assert text in command(tmp_path / name), name
    keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    assert "a file of Keras" in command(tmp_path / "other.keras")
    huge = tmp_path / "huge.safetensors"
    huge.touch()
    os.truncate(huge, LIMIT + 1)
    assert "must have at most" in command(huge)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_without_torch_its_files_are_refused(tmp_path, command):
    (tmp_path / "net.pt").write_bytes(b"\x80\x02anything")
    assert "net.pt needs PyTorch, which is not installed: pip install torch" in command(
        tmp_path / "net.pt"
    )


# --- with PyTorch ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="reads files of torch.save; PyTorch is optional")


@pytest.fixture(scope="module")
def make_golden(torch):
    """golden/make_golden.py as a module: PyTorch's own nets."""
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRAPPERS = {
    "plain.pt": lambda state: state,
    "wrapped.th": lambda state: {"state_dict": state, "best_acc": np.float64(92.1)},
    "averaged.bin": lambda state: {
        "n_averaged": state["bn1.num_batches_tracked"],
        **{f"module.{k}": v for k, v in state.items()},
    },
    "model.ckpt": lambda state: {"epoch": 7, "model": state, "args": argparse.Namespace(lr=0.1)},
    "module.pth.tar": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    "half.pt": lambda state: {
        k: v.bfloat16().double() if v.is_floating_point() else v for k, v in state.items()
    },
}


@pytest.mark.parametrize(
    ("depth", "shortcut", "padding"),
    [(20, "zeropad", "split"), (14, "projection-all", "end"), (8, "plain", "end")],
)
def test_files_of_torch(torch, make_golden, tmp_path, depth, shortcut, padding):
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


def test_checkpoint_with_optimizer_and_two_nets(torch, make_golden, tmp_path, command):
    nets = [make_golden.randomize(make_golden.Net(8), seed) for seed in (1, 2)]
    optimizer = torch.optim.SGD(nets[0].parameters(), lr=0.1, momentum=0.9)
    torch.nn.functional.cross_entropy(
        nets[0](make_golden.images(2, 0)), torch.tensor([1, 2])
    ).backward()
    optimizer.step()
    content = {"model": nets[0].state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "one.pt")
    assert "layer1.0.conv1.weight" in read_checkpoint(tmp_path / "one.pt").tensors
    torch.save({**content, "ema": {"shadow": nets[1].state_dict()}}, tmp_path / "two.pt")
    assert "Received: 'model', 'ema.shadow'" in command(tmp_path / "two.pt")
    found = read_checkpoint(tmp_path / "two.pt", key="ema.shadow")
    weights = nets[1].linear.weight.detach().numpy()
    np.testing.assert_array_equal(found.tensors["linear.weight"], weights)
    assert found.ignored == ["model", "optimizer"]
    assert "Received: 'model'" in command(tmp_path / "one.pt", "--key", "ema")


class Trap:
    """What unpickling it would run."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_classes_are_named_and_their_code_does_not_run(torch, tmp_path, command, zipped):
    layer, trap = "torch.nn.modules.linear.Linear", f"{os.mkdir.__module__}.mkdir"
    contents = {layer: torch.nn.Linear(2, 2), trap: {"state_dict": Trap(tmp_path / "sprung")}}
    for name, content in contents.items():
        torch.save(content, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
        assert f"of the classes {name}, which could not be read without" in command(
            tmp_path / "net.pt"
        )
    assert not (tmp_path / "sprung").exists()


def test_bad_files_of_torch_end_in_one_line(torch, tmp_path, command, monkeypatch):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "vector.pt")
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    whole = (tmp_path / "vector.pt").read_bytes()
    (tmp_path / "torn.pt").write_bytes(whole[:700])
    place = whole.index(b"weight")
    (tmp_path / "flipped.pt").write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x02}q\x00.")
    assert "must be a whole file of torch.save" in command(tmp_path / "torn.pt")
    for name in ("flipped", "pickle"):
        assert "could not be read" in command(tmp_path / f"{name}.pt"), name
    for name in ("vector", "list"):
        assert "Received: none" in command(tmp_path / f"{name}.pt"), name
    # A view can claim more than the file holds.
    bomb = {"conv.weight": torch.zeros(1).expand(2**20, 2**10, 3, 3)}
    torch.save(bomb, tmp_path / "bomb.pt")
    assert "the tensors have more than" in command(tmp_path / "bomb.pt")
    monkeypatch.setattr(checkpoint, "LIMIT", (tmp_path / "vector.pt").stat().st_size - 1)
    assert "must have at most" in command(tmp_path / "vector.pt")
