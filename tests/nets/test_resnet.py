"""The networks: size, wiring, initial weights, input, saving."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet.commands import terminal
from keras_resnet.commands.models import main
from keras_resnet.data import constants

ZEROPAD = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}
PROJECTION = {20: 272_474, 32: 466_906, 44: 661_338, 56: 855_770, 110: 1_730_714}


def parameters(net: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in net.trainable_variables)


@pytest.mark.parametrize("depth", ZEROPAD)
def test_parameters(depth: int) -> None:
    assert parameters(keras_resnet.resnet(depth)) == ZEROPAD[depth]
    assert parameters(keras_resnet.plain(depth)) == ZEROPAD[depth]
    assert parameters(keras_resnet.resnet(depth, shortcut="projection")) == PROJECTION[depth]


@pytest.mark.slow
def test_parameters_of_1202_layers() -> None:
    assert parameters(keras_resnet.resnet(1202)) == 19_421_274


def test_shortcuts_and_shapes_of_the_stages() -> None:
    net = keras_resnet.resnet(14, shortcut="projection-all")
    convs = [x for x in net.layers if x.name.endswith("_shortcut")]
    assert [conv.kernel.shape[:2] for conv in convs] == [(1, 1)] * 6
    assert not any(conv.use_bias for conv in convs)
    for stage, shape in enumerate([(32, 32, 16), (16, 16, 32), (8, 8, 64)], start=1):
        assert net.get_layer(f"stage{stage}_block2_relu2").output.shape[1:] == shape
    net = keras_resnet.resnet(8, shortcut="zeropad-maxpool")
    assert [x.pooling for x in net.layers if x.name.endswith("_shortcut")] == ["max", "max"]
    names = [layer.name for layer in keras_resnet.plain(14).layers]
    assert not [name for name in names if "shortcut" in name or name.endswith("_add")]


@pytest.mark.parametrize(
    ("depth", "nearest"),
    [(57, "56, 62"), (55, "50, 56"), (2, "8, 14"), (-4, "8, 14"), (1208, "1196, 1202")],
)
def test_other_depths_name_the_nearest(depth: int, nearest: str) -> None:
    for build in (keras_resnet.resnet, keras_resnet.plain):
        with pytest.raises(ValueError, match=f"depth={depth}; nearest: {nearest}"):
            build(depth)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shortcut": "identity"}, "shortcut must be one of zeropad"),
        ({"num_classes": 1}, "num_classes must be 2 or more"),
        ({"mean": (1.0,)}, "one number per channel"),
        (
            {"shortcut": "zeropad-maxpool", "input_shape": (32, 30, 3)},
            r"divisible by 4. Received: input_shape=\(32, 30, 3\)",
        ),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        keras_resnet.resnet(8, **arguments)


def test_initial_weights_are_kaiming_normal_fan_out_untruncated() -> None:
    net = keras_resnet.resnet(32)
    kernel = net.get_layer("stage3_block4_conv1").kernel.numpy()
    z = kernel / np.sqrt(2 / (3 * 3 * 64))
    assert abs(z.std() - 1) < 0.02 and abs(z.mean()) < 0.02
    assert np.abs(z).max() > 3  # a truncated normal ends at 2 (2.27 after rescaling)
    entering = net.get_layer("stage3_block1_conv1").kernel.numpy()  # fan-in 288, fan-out 576
    assert abs(entering.std() / np.sqrt(2 / (3 * 3 * 64)) - 1) < 0.02
    other = net.get_layer("stage3_block4_conv2").kernel.numpy()
    assert not np.array_equal(kernel, other)
    a, b, c = (keras_resnet.resnet(8, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not np.array_equal(a[0], c[0])


def test_normalisation_is_inside_and_maps_the_mean_colour_to_zero() -> None:
    net = keras_resnet.resnet(8)
    normalise = keras.Model(net.input, net.get_layer("normalization").output)
    x = np.zeros((1, 32, 32, 3), np.float32)
    x[:] = constants.CIFAR10_MEAN
    np.testing.assert_allclose(normalise(x), 0, atol=1e-6)
    x += constants.CIFAR10_STD
    np.testing.assert_allclose(normalise(x), 1, atol=1e-6)


def test_mixed_precision_keeps_normalisation_and_head_float32() -> None:
    net = keras_resnet.resnet(8, dtype="mixed_bfloat16")
    assert net.get_layer("stage1_block1_conv1").compute_dtype == "bfloat16"
    for name in ("normalization", "head_pool", "head_dense", "probabilities"):
        assert net.get_layer(name).compute_dtype == "float32"
    assert {v.dtype for v in net.variables} == {"float32"}


def test_command_prints_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--depth", "20"]) == 0
    assert "269,722" in capsys.readouterr().out
    assert terminal.run(lambda: main(["--depth", "21"])) == 2
    error = capsys.readouterr().err
    assert "nearest: 20, 26" in error and error.count("\n") == 1
