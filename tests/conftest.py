"""Shared fixtures: where the real data is, and a synthetic data set small enough for tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as our commands do

import pytest

# A script's `&` and nohup start a test run with these ignored, which the tests' processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

from keras_resnet.data import datasets, synthetic
from keras_resnet.data.dataset import Dataset

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> str:
    """The TFDS folder that holds the real CIFAR-10, or a skip that says where it was looked for."""
    places = [os.environ.get("TFDS_DATA_DIR"), REPOSITORY.parent / "shared/tensorflow_datasets"]
    for place in places:
        if place and (Path(place) / "cifar10").is_dir():
            return str(place)
    pytest.skip(f"the real CIFAR-10 is in none of {[str(p) for p in places if p]}")


@pytest.fixture(scope="session")
def cifar10(data_dir: str) -> Dataset:
    return datasets.load("cifar10", data_dir)


@pytest.fixture
def small_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--dataset synthetic` with 2,500 images instead of 60,000."""
    monkeypatch.setattr(synthetic, "SYNTHETIC_SIZES", (2_000, 500))
