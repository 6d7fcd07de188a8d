"""Turns, statistics and the check of probabilities; one benchmark runs whole, without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks import timing, training


@pytest.mark.slow
def test_muon_against_sgd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)  # synthetic images
    training.main(["--quick", "--only", "sgd", "muon", "--output", str(tmp_path)])
    (contest,) = json.loads((tmp_path / "training.json").read_text())["contests"].values()
    assert list(contest["ratios"]) == ["muon / sgd"]
    assert len(contest["contenders"]["muon"]["images_per_second"]["rounds"]) == 2


def test_ratio_compares_round_by_round() -> None:
    expected = {"median": 3.0, "min": 1.0, "max": 4.0, "rounds": [1.0, 4.0, 3.0]}
    assert timing.ratio([10.0, 20.0, 30.0], [10.0, 5.0, 10.0]) == expected


def test_every_second_round_is_in_reverse_order() -> None:
    turns: list[str] = []

    class Contender(timing.Worker):
        def __init__(self, name: str):
            self.name = name

        def rate(self, seconds: float) -> float:
            turns.append(self.name)
            return len(turns)

        def cpu_seconds(self) -> float:
            return 0.0

    rates, _ = timing.interleave({name: Contender(name) for name in "abc"}, 2, 0.1)
    assert "".join(turns) == "abccba"
    assert rates == {"a": [1, 6], "b": [2, 5], "c": [3, 4]}


@pytest.fixture
def contender(tmp_path: Path) -> dict[str, Any]:
    """A contender on a net whose answer is the mean color of an image."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["probabilities"], keepdims=0),
        helper.make_node("ArgMax", ["probabilities"], ["class_id"], axis=1, keepdims=0),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 32, 32, 3])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])
    class_id = helper.make_tensor_value_info("class_id", TensorProto.INT64, ["N"])
    graph = helper.make_graph(nodes, "mean_color", [image], [output, class_id], [axes])
    (tmp_path / "export").mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "export/model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "reference.npy", images.mean((1, 2)).astype(np.float32))
    spec = {"contender": "deployed", "engine": "onnxruntime", "file": "model.onnx"}
    return {**spec, "batch_size": 4, "target": str(tmp_path)}


def test_a_runtime_is_measured_alone_and_must_compute_the_same(contender: dict[str, Any]) -> None:
    with timing.Worker(contender) as worker:
        worker.wait_until_warm()
        assert worker.facts["difference"] < 1e-3
        assert worker.rate(0.01) > 0 and worker.peak_memory() > 10 and worker.cpu_seconds() > 0
        maps = Path(f"/proc/{worker._process.pid}/maps").read_text()
    assert "onnxruntime" in maps and "tensorflow" not in maps and "torch" not in maps
    file = Path(contender["target"]) / "reference.npy"
    np.save(file, np.load(file) + np.float32(0.002))
    with timing.Worker(contender) as worker, pytest.raises(SystemExit, match=r"within 0\.001 of"):
        worker.wait_until_warm()
