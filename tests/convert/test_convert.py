"""PyTorch checkpoints become our nets, whatever names they have. Files of torch.save: test_torch_files.py."""

import importlib.util
import os
import re

import keras
import ml_dtypes
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import keras_resnet
from keras_resnet.convert.checkpoint import LIMIT, read_checkpoint
from keras_resnet.convert.weights import channel_order, convert
from keras_resnet.errors import UserError
from tests.helpers import GOLDEN, call, golden_state, logits_of

FIXTURE = GOLDEN / "resnet8_split.safetensors"
CONSTANTS = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
FLAGS = ["--mean", *CONSTANTS["mean"], "--std", *CONSTANTS["std"]]


def state_of(golden, name):
    """PyTorch's state_dict of one of the golden nets, with its counters of batches."""
    state = golden_state(golden, re.sub(r"\D", "", name), projection=name == "projection8")
    counters = [key for key in state if key.endswith("running_var")]
    return state | {k.replace("running_var", "num_batches_tracked"): np.array(9) for k in counters}


def check(net, golden, name):
    """The net's logits are those of PyTorch's."""
    found = keras.ops.convert_to_numpy(logits_of(net)(golden["images"], training=False))
    np.testing.assert_allclose(found, golden[f"{name}/logits"], rtol=0, atol=1e-4)


@pytest.fixture
def command(tmp_path, refused):
    """`convert`, which must end in one line, leave the output as it is, and returns the line."""
    output = tmp_path / "net.keras"
    output.write_bytes(b"an older net")

    def run(file, *arguments):
        error = refused("convert", file, "--output", output, *arguments)
        assert output.read_bytes() == b"an older net" and not list(tmp_path.rglob(".tmp-*"))
        return error

    return run


def test_the_stored_safetensors_checkpoint(tmp_path, capsys):
    """Written by PyTorch: float16, split padding, `module.` prefixes, 5 classes."""
    output = tmp_path / "net.keras"
    assert call("convert", FIXTURE, "--padding", "split", *FLAGS, "--output", output) == 0
    assert "resnet8, 5 classes, 74,965 trainable parameters" in capsys.readouterr().out
    net = keras.models.load_model(output)
    with np.load(GOLDEN / "resnet8_split.npz") as file:
        found = keras.ops.convert_to_numpy(net(file["images"], training=False))
        np.testing.assert_allclose(found, file["probabilities"], rtol=0, atol=1e-4)
    assert os.listdir(tmp_path) == ["net.keras"]
    (tmp_path / "labels.txt").write_text("a\nb\n")  # of another net
    other = ["--padding", "split", *FLAGS, "--output", tmp_path / "other.keras"]
    assert call("convert", FIXTURE, *other) == 2
    assert "must name the 5 classes" in capsys.readouterr().err
    assert not (tmp_path / "other.keras").exists()


def test_safetensors_that_begin_as_a_pickle_does(tmp_path):
    """The first byte is that of the header's length: one file in 32 begins with 0x80."""
    file, tensors = tmp_path / "net.safetensors", {"fc.bias": np.arange(5, dtype=np.float32)}
    for length in range(0, 256, 8):
        save_file(tensors, file, metadata={"text": "x" * length})
        if file.read_bytes()[0] == 0x80:
            break
    assert file.read_bytes()[0] == 0x80
    np.testing.assert_array_equal(read_checkpoint(file).tensors["fc.bias"], tensors["fc.bias"])


@pytest.mark.parametrize("name", ["zeropad20", "projection8", "plain8"])
def test_a_module_that_normalises_and_what_is_not_of_the_net(
    golden, name, tmp_path, capsys, monkeypatch
):
    """Lightning's way: the constants, a criterion and metrics beside the net's layers."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))  # no images to choose the padding by
    state = {f"model.{key}": value for key, value in state_of(golden, name).items()}
    for key, values in CONSTANTS.items():
        state[f"normalize.{key}"] = np.reshape(values, (1, 3, 1, 1)).astype("float32")
    state |= {"criterion.weight": np.ones(10), "n_averaged": np.array(5)}
    file, output = tmp_path / "pytorch_model.bin", tmp_path / "net.keras"
    save_file(state, file)
    model = ["--model", "plain"] if name == "plain8" else []
    assert call("convert", file, *model, "--output", output) == 0
    check(keras.models.load_model(output), golden, name)
    lines = capsys.readouterr().out.splitlines()
    assert "mean is the checkpoint's: 0.4914, 0.4822, 0.4465" in lines[1]
    assert lines[1].endswith("ignored: criterion.weight, n_averaged")
    assert ("--padding split" in lines[2]) == (name == "zeropad20")


def test_constants_of_0_to_255_and_flags_come_first(golden, tmp_path):
    state = {n: a.astype(ml_dtypes.bfloat16) for n, a in state_of(golden, "zeropad8").items()}
    state |= {"mean": np.float32([120, 121, 122]), "std": np.float32([60, 61, 62])}
    file, output = tmp_path / "net.safetensors", tmp_path / "net.keras"
    save_file(state, file)
    found = read_checkpoint(file)
    np.testing.assert_allclose(found.mean, np.array([120, 121, 122]) / 255)
    assert call("convert", file, "--std", 0.1, 0.2, 0.5, "--output", output) == 0
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
    words = ["convert", tmp_path / "net.safetensors", "--output", output, "--images"]
    assert call(*words, tmp_path / "images") == 0
    said = capsys.readouterr().out
    assert f"padding {padding} fits 64 images" in said and "warning" not in said
    images = cifar10.test_images[:16]
    found = keras.models.load_model(output).predict(images, verbose=0)
    np.testing.assert_allclose(found, net.predict(images, verbose=0), rtol=0, atol=1e-4)
    if padding == "end":
        wrong = ["--mean", 0, 0, 0, "--std", 1, 1, 1]
        assert call(*words, tmp_path / "images", *wrong) == 0
        assert "warning: that is far" in capsys.readouterr().out
        assert call(*words, tmp_path / "nothere") == 2


STYLES = {  # how others name the layers: (pattern, replacement), applied one after the other
    "conv_bn_modules": [
        (r"^conv1", "features.init_block.conv"), (r"^bn1", "features.init_block.bn"),
        (r"layer(\d)\.(\d+)\.(conv|bn)(\d)", r"features.stage\1.unit\2.body.conv\4.\3"),
        (r"layer(\d)\.(\d+)\.shortcut\.0", r"features.stage\1.unit\2.identity_conv.conv"),
        (r"layer(\d)\.(\d+)\.shortcut\.1", r"features.stage\1.unit\2.identity_conv.bn"),
        (r"linear", "output"),
    ],
    "sequential": [
        (r"^conv1", "stem.0"), (r"^bn1", "stem.1"), (r"layer", "blocks."), (r"\.conv1", ".body.0"),
        (r"\.bn1", ".body.1"), (r"\.conv2", ".body.3"), (r"\.bn2", ".body.4"),
        (r"linear", "classifier.1"),
    ],
}  # fmt: skip


def renamed(state, style):
    result = {}
    for key, value in state.items():
        for pattern, replacement in style:
            key = re.sub(pattern, replacement, key)
        result[key] = value
    assert len(result) == len(state)
    return result


@pytest.mark.parametrize("style", STYLES)
def test_names_of_others(golden, style):
    for name in ("projection8", "zeropad20"):
        state = sorted(renamed(state_of(golden, name), STYLES[style]).items())
        check(convert(dict(state), **CONSTANTS), golden, name)


@pytest.mark.parametrize(
    "style",
    [
        [(r"\.0\.", ".one."), (r"\.1\.", ".two."), (r"\.2\.", ".three.")],
        [(r"bn1", "before"), (r"bn2", "after")],
        [(r"\.conv1", ".one"), (r"\.conv2", ".two")],
    ],
)
def test_names_that_do_not_tell_the_order(golden, style):
    """In the order of the file; sorted by such names, it is an error."""
    state = renamed(state_of(golden, "zeropad20"), style)
    check(convert(state, depth=20, **CONSTANTS), golden, "zeropad20")
    with pytest.raises(UserError, match="order of the layers cannot be decided"):
        convert(dict(sorted(state.items())), depth=20)


def test_convs_before_the_bns_of_each_block(golden):
    """Registered conv1, conv2, bn1, bn2: which BN follows which conv, only the names say."""
    state = state_of(golden, "zeropad8")
    keys = sorted(state, key=lambda k: (k[:3] == "lin", k[:6] * (k[:5] == "layer"), "bn" in k))
    check(convert({key: state[key] for key in keys}, **CONSTANTS), golden, "zeropad8")


def test_the_tenth_block_comes_after_the_second(tmp_path):
    """In the alphabet layer1.10 comes before layer1.2, and all their shapes are alike."""
    torch_weights = pytest.importorskip("keras_resnet.export.torch_weights", reason="needs ONNX")
    net = keras_resnet.resnet(74)
    torch_weights.write(net, tmp_path / "net.safetensors")
    tensors = read_checkpoint(tmp_path / "net.safetensors").tensors
    found = convert(dict(sorted(tensors.items())), padding="split")
    for ours, theirs in zip(net.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def put(key, *shape, value=0.0):
    return lambda state: state.__setitem__(key, np.full(shape, value, "float32"))


def test_what_does_not_fit_is_listed(golden):
    for change, text in (
        (lambda s: s.pop("layer1.0.bn2.running_mean"), r"layer1.0.bn2 has weight \(16,\), bias"),
        (lambda s: s.pop("layer2.0.conv2.weight"), r"\(32, 32, 3, 3\): 1 expected, 0 received"),
        (put("layer1.0.conv1.bias", 16), "layer1.0.conv1 has .*not a conv without bias"),
        (put("layer4.0.conv1.weight", 64, 64, 3, 3), "2 received .*layer4.0.conv1"),
        (put("linear.bias", 10, value=np.nan), "linear .*not finite"),
        (put("bn1.running_var", 16, value=-1), "bn1 .*negative"),
    ):
        state = state_of(golden, "zeropad8")
        change(state)
        with pytest.raises(UserError, match=text):
            convert(state, depth=8)


def test_options_of_another_net_are_refused(golden):
    for name, options, text in (
        ("zeropad20", {"depth": 8}, "`depth` must be 20"),
        ("zeropad8", {"shortcut": "projection"}, "`shortcut` must be zeropad"),
        ("projection8", {"model": "plain"}, r"\(32, 16, 1, 1\): 0 expected, 1 received"),
    ):
        with pytest.raises(UserError, match=text):
            convert(state_of(golden, name), **options)


def test_another_family_is_named_before_single_shapes():
    """ResNet-50: 64 filters of 7x7 in the stem, bottlenecks, up to 2048 filters."""
    state = {"conv1.weight": np.zeros((64, 3, 7, 7)), "fc.weight": np.zeros((10, 2048))}
    for k in range(3):
        state[f"layer{k}.conv1.weight"] = np.zeros((64, 256, 1, 1))
        state[f"layer{k}.conv2.weight"] = np.zeros((64, 64, 3, 3))
        state[f"layer{k}.conv3.weight"] = np.zeros((256, 64, 1, 1))
    with pytest.raises(UserError, match="another family .* stem of 64 .*bottleneck .*256"):
        convert(state)


def test_a_pre_activation_net_is_refused(golden):
    """He et al. 2016: a BN before each conv of a block, and one at the end. Shapes and order are ours."""
    state = golden_state(golden, 8, projection=False)
    convs = [name.removesuffix(".weight") for name, value in state.items() if value.ndim == 4]
    following = dict(zip(convs, [*convs[1:], "bn"], strict=True))
    moved, last = {}, ""
    for name, value in state.items():
        path, _, leaf = name.rpartition(".")
        last = path if path in convs else last
        bn = following[last].replace("conv", "bn")
        moved[f"{bn}.{leaf}" if "bn" in path else name] = value
    with pytest.raises(UserError, match="a pre-activation net"):
        convert(moved, depth=8)


def test_bad_flags(command):
    for arguments, text in (
        (["--depth", "57"], "--depth must be 8"),
        (["--padding", "split", "--model", "plain"], "padding=split is for"),
        (["--mean", "nan", "0", "0"], "--mean must be in units of 0..1"),
        (["--key", "ema"], "--key is for files of torch.save"),
        (["--output", "net.h5"], "--output must be a .keras file in an existing folder"),
        (["--dataset", "cifar100"], "--dataset must have the net's 5 classes"),
    ):
        assert text in command(FIXTURE, *arguments)


def test_bad_files(command, tmp_path):
    whole = FIXTURE.read_bytes()
    bad = {
        "empty.safetensors": (b"", "must be a whole file of torch.save"),
        "page.pt": (b"<!DOCTYPE html>", "which begins with b'<!DOCTYPE'"),
        "torn.safetensors": (whole[: len(whole) // 2], "could not be read as safetensors"),
        "net.weights.bin": (b"\x89HDF\r\n\x1a\n", "a file of Keras, which needs no conversion"),
    }
    for name, (data, text) in bad.items():
        (tmp_path / name).write_bytes(data)
        assert text in command(tmp_path / name), name
    assert "No such file" in command(tmp_path / "missing.safetensors")
    os.mkfifo(tmp_path / "fifo")
    assert "it is no regular file" in command(tmp_path / "fifo")
    (tmp_path / "huge.safetensors").touch()
    os.truncate(tmp_path / "huge.safetensors", LIMIT + 1)
    assert "must have at most" in command(tmp_path / "huge.safetensors")


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_without_torch_its_files_are_refused(tmp_path, command):
    (tmp_path / "net.pt").write_bytes(b"\x80\x02anything")
    assert "needs PyTorch, which is not installed: pip install" in command(tmp_path / "net.pt")
