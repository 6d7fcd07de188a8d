"""Shared fixtures: where the real data is, a small synthetic data set, and a command that is refused."""

import os
import signal
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as our commands do

import numpy as np
import pytest

# A script's `&` and nohup start a test run with these ignored, which the tests' processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

from keras_resnet.data import datasets, synthetic
from tests.helpers import GOLDEN, REPOSITORY, call


def pytest_configure(config):
    config.option.loadscopereorder = False  # pytest-xdist keeps the order of the next function


def pytest_collection_modifyitems(items):
    """Files with slow tests first: else one process would wait for the other at the end."""
    items.sort(key=lambda item: "slow" not in item.keywords)


@pytest.fixture(scope="session")
def data_dir():
    """The TFDS folder that holds the real CIFAR-10, or a skip that says where it was looked for."""
    places = [os.environ.get("TFDS_DATA_DIR"), REPOSITORY.parent / "shared/tensorflow_datasets"]
    for place in places:
        if place and (Path(place) / "cifar10").is_dir():
            return str(place)
    pytest.skip(f"the real CIFAR-10 is in none of {[str(p) for p in places if p]}")


@pytest.fixture(scope="session")
def cifar10(data_dir):
    return datasets.load("cifar10", data_dir)


@pytest.fixture(scope="session")
def golden():
    """What PyTorch's nets make of some images, and their weights (golden/make_golden.py)."""
    with np.load(GOLDEN / "nets.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def small_synthetic():
    """`--dataset synthetic` with 2,500 images instead of 60,000, up to the end of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SYNTHETIC_SIZES", (2_000, 500))
        yield


@pytest.fixture
def refused(capsys):
    """A command that must end with exit code 2 and one line on stderr, which is returned."""

    def refused(*arguments):
        capsys.readouterr()
        assert call(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error
        assert error[:-1].isprintable(), error
        return error

    return refused
