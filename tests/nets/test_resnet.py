"""The networks: size, wiring, initial weights, input, saving."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_projection_all_projects_every_block() -> None:
    net = keras_resnet.resnet(14, shortcut="projection-all")
    convs = [x for x in net.layers if x.name.endswith("_shortcut") and x.kernel.shape[:2] == (1, 1)]
    assert len(convs) == 6 and all(not conv.use_bias for conv in convs)


def test_zeropad_maxpool_takes_maxima() -> None:
    net = keras_resnet.resnet(8, shortcut="zeropad-maxpool")
    assert [x.pooling for x in net.layers if x.name.endswith("_shortcut")] == ["max", "max"]


@pytest.mark.parametrize(
    ("depth", "nearest"),
    [(57, "56, 62"), (55, "50, 56"), (2, "8, 14"), (0, "8, 14"), (-4, "8, 14"), (9, "8, 14"),
     (1201, "1196, 1202"), (1208, "1196, 1202")],
)  # fmt: skip
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


def test_shapes_of_the_stages() -> None:
    net = keras_resnet.resnet(14)
    for stage, shape in enumerate([(32, 32, 16), (16, 16, 32), (8, 8, 64)], start=1):
        assert net.get_layer(f"stage{stage}_block2_relu2").output.shape[1:] == shape
    assert net.output_shape == (None, 10)


def test_plain_has_no_shortcut() -> None:
    names = [layer.name for layer in keras_resnet.plain(14).layers]
    assert not [name for name in names if "shortcut" in name or name.endswith("_add")]


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


def test_initial_weights_are_a_function_of_the_seed() -> None:
    a, b, c = (keras_resnet.resnet(8, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not np.array_equal(a[0], c[0])


def test_uint8_and_float_pixels_give_the_same() -> None:
    net = keras_resnet.resnet(8)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(net(images), net(images.astype("float32")))
    np.testing.assert_allclose(np.sum(net(images), axis=1), 1, atol=1e-5)


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


def test_a_new_process_loads_a_saved_net(tmp_path: Path) -> None:
    net = keras_resnet.resnet(8, shortcut="zeropad", seed=3)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    net.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import keras_resnet, keras, numpy as np;"
        "net = keras.models.load_model('model.keras');"
        "np.save('out.npy', net.predict(np.load('images.npy'), verbose=0))"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        capture_output=True,
    )
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy"), net.predict(images, verbose=0), atol=1e-6
    )


def test_command_prints_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--depth", "20"]) == 0
    assert "269,722" in capsys.readouterr().out
    assert terminal.run(lambda: main(["--depth", "21"])) == 2
    error = capsys.readouterr().err
    assert "nearest: 20, 26" in error and error.count("\n") == 1
