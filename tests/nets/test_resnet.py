"""The networks: size, wiring, initial weights, input, saving."""

import numpy as np
import pytest

import keras_resnet

ZEROPAD = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}


def parameters(net):
    return sum(int(np.prod(v.shape)) for v in net.trainable_variables)


def test_parameters():
    for depth, expected in ZEROPAD.items():
        assert parameters(keras_resnet.resnet(depth)) == expected
    assert parameters(keras_resnet.plain(56)) == ZEROPAD[56]
    assert parameters(keras_resnet.resnet(56, shortcut="projection")) == 855_770


def test_shortcuts_and_shapes_of_the_stages():
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


def test_bad_arguments():
    for arguments, message in (
        ({"depth": 57}, "depth=57; nearest: 56, 62"),
        ({"shortcut": "identity"}, "shortcut must be one of zeropad"),
        ({"num_classes": 1}, "num_classes must be 2 or more"),
        ({"mean": (1.0,)}, "one number per channel"),
        ({"mean": 127.5}, "one number per channel"),
        ({"input_shape": (64, 64)}, "input_shape must be .height, width, channels"),
        ({"shortcut": "zeropad-maxpool", "input_shape": (32, 30, 3)}, "divisible by 4.*32, 30, 3"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_resnet.resnet(**{"depth": 8, **arguments})


def test_initial_weights_are_kaiming_normal_fan_out_untruncated():
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


def test_mixed_precision_keeps_normalisation_and_head_float32():
    net = keras_resnet.resnet(8, dtype="mixed_bfloat16")
    assert net.get_layer("stage1_block1_conv1").compute_dtype == "bfloat16"
    for name in ("normalization", "head_pool", "head_dense", "probabilities"):
        assert net.get_layer(name).compute_dtype == "float32"
    assert {v.dtype for v in net.variables} == {"float32"}
