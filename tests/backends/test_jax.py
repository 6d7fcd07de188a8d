"""JAX on several devices and processes: the numbers of one device, and an end where one process ends."""

import os
import signal
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet.runs import checkpoint
from keras_resnet.runs.folder import RunFolder
from keras_resnet.training import hosts
from tests.backends.test_hosts import ends, free_address
from tests.helpers import start_python

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras's backend is not JAX"),
    pytest.mark.slow,
]
DRIVER = Path(__file__).parents[1] / "training/fault_driver.py"
# A rate at which roundings do not grow: at the paper's 0.1 they double with every few updates.
FLAGS = [
    "--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=32", "--name=run",
    "--steps=50", "--eval-every=10", "--checkpoint-every=10", "--recipe=fast", "--learning-rate=0.001",
]  # fmt: skip


def start(output, *flags, devices=1, fault="none", **env):
    xla = f"--xla_force_host_platform_device_count={devices}"
    words = [DRIVER, fault, *FLAGS, f"--output-dir={output}", *flags]
    return start_python(*words, env={**os.environ, "XLA_FLAGS": xla, **env})


def run(output, *flags, devices=1):
    return ends([start(output, *flags, devices=devices)])[0]


def start_two(output, *flags, faults=("none", "none"), flags_of_second=(), devices=(2, 2)):
    """Two processes of two devices each, on this machine."""
    variables = {hosts.ADDRESSES: free_address(), hosts.PROCESSES: "2"}
    processes = []
    for k in range(2):
        variables[hosts.PROCESS] = str(k)
        own = flags_of_second if k else ()
        options = {"devices": devices[k], "fault": faults[k]}
        processes.append(start(output, *flags, *own, **options, **variables))
    return processes


def losses(output, seed=0):
    rows = RunFolder(output / f"run/seed-{seed}").read_metrics()
    return np.array([[row["train_loss"], row["val_loss"]] for row in rows], float)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Seeds 0 and 1 on one device."""
    output = tmp_path_factory.mktemp("one")
    code, _, err = run(output, "--runs=2")
    assert code == 0 and err == "", err
    return output


def test_four_devices_train_as_one_does(one, tmp_path):
    code, out, err = run(tmp_path, "--runs=2", devices=4)
    assert code == 0 and "4 devices: CPU" in out, err
    for seed in (0, 1):
        np.testing.assert_allclose(losses(tmp_path, seed), losses(one, seed), rtol=1e-4)
        assert RunFolder(tmp_path / f"run/seed-{seed}").read_config()["device"]["count"] == 4
    # The same command on one device finds its results.
    assert "is finished" in run(tmp_path)[1]


def test_two_processes_train_as_one_does(one, tmp_path):
    """Stopped by a SIGTERM to one of them, then resumed by the same commands."""
    processes = start_two(tmp_path)
    metrics = tmp_path / "run/seed-0/metrics.csv"
    while not metrics.exists() or metrics.read_text().count("\n") < 2:
        assert processes[0].poll() is None
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    for code, _, err in ends(processes):
        assert code == 128 + signal.SIGTERM, err
        assert "0: checkpoint saved" in err and err.count("\n") == 1, err
    step = checkpoint.step_of(checkpoint.list_checkpoints(tmp_path / "run/seed-0")[0])
    assert 10 < step < 50
    (code, out, err), other = ends(start_two(tmp_path))
    assert code == 0 and f"resuming at update {step} of 50" in out and err == "", err
    assert "4 devices: CPU" in out
    assert other[0] == 0 and other[1].count("\n") == 1 and other[2] == "", other
    np.testing.assert_allclose(losses(tmp_path), losses(one), rtol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_dies_the_other_ends_and_one_device_goes_on(victim, one, tmp_path):
    faults = ("update:15", "none") if victim == 0 else ("none", "update:15")
    processes = start_two(tmp_path, faults=faults)
    processes[victim].wait(timeout=200)
    died = time.monotonic()
    code, _, err = ends(processes)[1 - victim]
    assert code != 0 and time.monotonic() - died < 60, err
    if victim == 0:
        code, out, err = run(tmp_path)
        assert "note: this run began with another device" in out, err
    else:
        (code, out, err), other = ends(start_two(tmp_path))
        assert other[0] == 0, other
    assert code == 0 and "resuming at update 10 of 50" in out, err
    np.testing.assert_allclose(losses(tmp_path), losses(one), rtol=1e-4)


def test_devices_that_do_not_fit(tmp_path):
    for devices, expected in (
        (3, "and divisible by the number of devices, 3. Received: 32"),
        (5, "--devices must be at most 4 on this host. Received: 5"),
    ):
        code, _, err = run(tmp_path, f"--devices={devices}", devices=4)
        assert code == 2 and expected in err and err.count("\n") == 1
        assert not list(tmp_path.iterdir())


def test_the_other_process_reads_and_writes_no_run_folder(tmp_path):
    """As on two hosts without a shared disk."""
    flags = (f"--output-dir={tmp_path / 'other'}",)
    for code, _, err in ends(start_two(tmp_path / "first", flags_of_second=flags)):
        assert code == 0, err
    assert (tmp_path / "first/run/seed-0/results.json").exists()
    assert not (tmp_path / "other").exists()
    again = ends(start_two(tmp_path / "first", flags_of_second=flags))
    assert [code for code, *_ in again] == [0, 0] and "is finished" in again[0][1]


def test_what_is_wrong_on_one_process_ends_both_in_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/seed-0").write_text("in the way")
    for options, expected in (
        ({}, "seed-0"),
        ({"flags_of_second": ("--learning-rate=0.2",)}, "must be the same for all processes"),
        ({"devices": (2, 1)}, "must have the same number of devices. Received: [2, 1]"),
    ):
        for code, _, err in ends(start_two(tmp_path, **options)):
            assert code == 2 and err.count("\n") == 1 and expected in err, err


def test_a_signal_at_the_end_of_a_seed_stops_all(tmp_path):
    """It comes to process 0 after the last update of the first of two seeds."""
    faults = ("signal_at_save", "none")
    for code, out, err in ends(start_two(tmp_path, "--runs=2", faults=faults)):
        assert code == 128 + signal.SIGTERM, (out, err)
    assert (tmp_path / "run/seed-0/results.json").exists()
    assert not (tmp_path / "run/seed-1").exists()
