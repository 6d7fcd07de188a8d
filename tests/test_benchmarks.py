"""The benchmarks' arithmetic, without PyTorch. The measuring itself is tried with `--quick`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import keras_resnet
from benchmarks import deployed, deployed_nets, measure, training_nets


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
        "of_medians": 2.0, "mean": 2.667, "standard_error": 0.8819,
        "median": 3.0, "min": 1.0, "max": 4.0, "rounds": [1.0, 4.0, 3.0]
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


def test_difference_is_the_mean_of_the_largest_of_each_image_in_the_first_calls() -> None:
    images = np.arange(40, dtype=np.uint8)
    reference = np.stack([images / 100, images / 50], 1)
    wrong = np.where(images[:, None] < 2, [[0.1, 0.3]], 0.0)  # in 2 of 40 images

    def predict(batch: np.ndarray) -> np.ndarray:
        return reference[batch] + wrong[batch]

    assert deployed_nets.difference(predict, images, reference, 40) == pytest.approx(0.6 / 40)
    assert deployed_nets.difference(predict, images, reference, 1) == pytest.approx(0.6 / 16)
    nan = deployed_nets.difference(lambda batch: predict(batch) * np.nan, images, reference, 8)
    assert np.isnan(nan)


@pytest.fixture
def mean_colors(tmp_path: Path) -> Path:
    """What `prepare` leaves, with a net whose answer is the mean color of an image."""
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["probabilities"], keepdims=0),
        helper.make_node("ArgMax", ["probabilities"], ["class_id"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "mean_colors",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 32, 32, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("class_id", TensorProto.INT64, ["N"]),
        ],
        [axes],
    )
    folder = tmp_path / "20"
    folder.mkdir()
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), folder / "model.onnx")
    np.save(tmp_path / "images.npy", images)
    np.save(folder / deployed_nets.REFERENCE, images.mean((1, 2)).astype(np.float32))
    return tmp_path


def contender(folder: Path, batch: int) -> measure.Worker:
    spec: dict[str, Any] = {"contender": "deployed_onnxruntime_float32", "depth": 20}
    return measure.Worker({**spec, "batch": batch, "folder": str(folder)})


def test_a_runtime_is_measured_without_tensorflow_in_its_process(mean_colors: Path) -> None:
    with contender(mean_colors, batch=4) as worker:
        assert worker.ready()["difference"] < 1e-3
        assert worker.rate(0.01) > 0
        maps = Path(f"/proc/{worker._process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "tensorflow" not in maps and "torch" not in maps


@pytest.mark.parametrize("error", [0.002, np.nan])
def test_a_contender_with_other_probabilities_cannot_win(mean_colors: Path, error: float) -> None:
    file = mean_colors / "20" / deployed_nets.REFERENCE
    np.save(file, np.load(file) + np.float32(error))
    with (
        contender(mean_colors, batch=1) as worker,
        pytest.raises(measure.WorkerFailed, match=r"must be within 0\.001 of .* a difference of"),
    ):
        worker.ready()


def test_the_markdown_names_the_load_and_what_was_left_out() -> None:
    rate, ratio = measure.summary([1000.0, 3000.0, 2000.0]), measure.ratio([4.0, 6.0], [2.0, 2.0])
    row = {"images_per_second": rate, "to_torch_eager": ratio, "precision": "bf16"}
    names = [name for name in deployed.LABELS if name != "litert"]
    contest = {"contenders": dict.fromkeys(names, row), "cpu_of_others_percent": 7.5}
    text = deployed.table(
        {
            "machine": {"cpu": "CPU", "cores": 2, "bfloat16_flags": []},
            "versions": {"torch": "2.13.0"},
            "git_commit": "abc",
            "settings": {"rounds": 3},
            "left_out": {"litert": "no interpreter"},
            "nets": {"20": {"1": contest}},
        }
    )
    assert "| PyTorch eager | 2,000 (1,000..3,000) |\n" in text
    assert "| OpenVINO, int8 file, its default (bf16) | 2.50 (2.00..3.00) |\n" in text
    assert "Left out: LiteRT: no interpreter." in text and "| LiteRT" not in text
    assert "Measured under load" in text
