"""Turns, statistics and the check of probabilities; one benchmark runs whole, without PyTorch."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from benchmarks import timing, training
from tests.helpers import onnx_model


@pytest.mark.slow
def test_muon_against_sgd(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)  # synthetic images
    training.main(["--quick", "--only", "sgd", "muon", "--output", str(tmp_path)])
    (contest,) = json.loads((tmp_path / "training.json").read_text())["contests"].values()
    assert list(contest["ratios"]) == ["muon / sgd"]
    assert len(contest["contenders"]["muon"]["images_per_second"]["rounds"]) == 2


@pytest.fixture
def contender(tmp_path):
    """A contender on a net whose answer is the mean color of an image."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["probabilities"], keepdims=0),
        helper.make_node("ArgMax", ["probabilities"], ["class_id"], axis=1, keepdims=0),
    ]
    inputs = [("image", TensorProto.UINT8, ["N", 32, 32, 3])]
    outputs = [("probabilities", TensorProto.FLOAT, ["N", 3])]
    outputs.append(("class_id", TensorProto.INT64, ["N"]))
    (tmp_path / "export").mkdir()
    onnx_model(tmp_path / "export/model.onnx", nodes, inputs, outputs, [axes])
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "reference.npy", images.mean((1, 2)).astype(np.float32))
    spec = {"contender": "deployed", "engine": "onnxruntime", "file": "model.onnx"}
    return {**spec, "batch_size": 4, "target": str(tmp_path)}


def test_a_runtime_is_measured_alone_and_must_compute_the_same(contender):
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
