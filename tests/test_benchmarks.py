"""One benchmark runs whole, without PyTorch."""

import json

import pytest

from benchmarks import training


@pytest.mark.slow
def test_muon_against_sgd(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)  # synthetic images
    training.main(["--quick", "--only", "sgd", "muon", "--output", str(tmp_path)])
    (contest,) = json.loads((tmp_path / "training.json").read_text())["contests"].values()
    assert list(contest["ratios"]) == ["muon / sgd"]
    assert len(contest["contenders"]["muon"]["images_per_second"]["rounds"]) == 2
