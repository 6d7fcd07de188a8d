"""The benchmarks' arithmetic, without PyTorch. The measuring itself is tried with `--quick`."""

from __future__ import annotations

import pytest

import keras_resnet
from benchmarks import measure, training_nets


@pytest.mark.parametrize(
    ("depth", "expected"),
    # By hand: stem 32*32*27*16, a stage's 3x3 convolutions, the dense layer's 640.
    [
        (8, 442_368 + 2 * 2_359_296 + 2 * (1_179_648 + 2_359_296) + 640),
        (20, 442_368 + 6 * 2_359_296 + 2 * (1_179_648 + 5 * 2_359_296) + 640),
    ],
)
def test_multiply_adds_are_those_of_the_convolutions_and_the_dense_layer(
    depth: int, expected: int
) -> None:
    net = keras_resnet.resnet(depth)
    assert training_nets.multiply_adds(net) == expected
    if depth == 20:
        assert expected / 1e6 == pytest.approx(40.55, abs=0.01)
        assert measure.training_flops(expected) == 6 * expected


def test_summary_and_ratio_keep_each_round() -> None:
    found = measure.ratio([10.0, 20.0, 30.0], [10.0, 5.0, 10.0])
    assert found == {
        "of_medians": 2.0, "median": 3.0, "min": 1.0, "max": 4.0, "rounds": [1.0, 4.0, 3.0]
    }  # fmt: skip


def test_line_fit_finds_the_line_and_the_relative_error() -> None:
    fit = measure.line_fit([20, 56, 110], [5.0 + 0.5 * d for d in (20, 56, 110)])
    assert fit["intercept"] == pytest.approx(5)
    assert fit["slope"] == pytest.approx(0.5)
    assert fit["largest_error"] == pytest.approx(0, abs=1e-9)
    assert measure.line_fit([1, 2, 3], [1.0, 2.0, 4.0])["largest_error"] > 0.05


def test_a_worker_that_dies_is_named_with_its_last_line() -> None:
    with (
        measure.Worker({"contender": "onnx_float32", "depth": 8, "folder": "/nowhere"}) as worker,
        pytest.raises(measure.WorkerFailed, match=r"onnx_float32-8 .*No such file"),
    ):
        worker.ready()
