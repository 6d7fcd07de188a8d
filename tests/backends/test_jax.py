"""JAX on several devices and processes: the numbers of one device, and an end where one process ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet.runs import checkpoint
from keras_resnet.runs.folder import RunFolder

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras's backend is not JAX"),
    pytest.mark.slow,
]
DRIVER = Path(__file__).parents[1] / "training/fault_driver.py"
# A rate at which roundings do not grow: at the paper's 0.1 they double with every few updates.
FLAGS = [
    "--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=32", "--name=run",
    "--steps=50", "--eval-every=10", "--checkpoint-every=10", "--learning-rate=0.001",
]  # fmt: skip
FAST = "--recipe=fast"


def start(
    output: Path, *flags: str, devices: int = 1, fault: str = "none", **env: str
) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(DRIVER), fault, *FLAGS, f"--output-dir={output}", *flags],
        env={
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            **env,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(output: Path, *flags: str, devices: int = 1) -> tuple[int, str, str]:
    process = start(output, *flags, devices=devices)
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def start_two(
    output: Path,
    faults: tuple[str, str] = ("none", "none"),
    flags_of_second: tuple[str, ...] = (),
    flags_of_both: tuple[str, ...] = (),
    devices: tuple[int, int] = (2, 2),
) -> list[subprocess.Popen]:
    """Two processes of two devices each, on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        start(
            output,
            *flags_of_both,
            *(flags_of_second if k else ()),
            devices=devices[k],
            fault=faults[k],
            KERAS_DISTRIBUTION_JOB_ADDRESSES=address,
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(k),
        )
        for k in range(2)
    ]


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    outputs = [process.communicate(timeout=200) for process in processes]
    return [(p.returncode, *o) for p, o in zip(processes, outputs, strict=True)]


def losses(output: Path, seed: int = 0) -> np.ndarray:
    rows = RunFolder(output / f"run/seed-{seed}").read_metrics()
    return np.array([[row["train_loss"], row["val_loss"]] for row in rows], float)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds 0 and 1 on one device."""
    output = tmp_path_factory.mktemp("one")
    code, _, err = run(output, "--runs=2")
    assert code == 0 and err == "", err
    return output


@pytest.fixture(scope="module")
def one_fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds 0 and 1 on one device, kernels by Muon."""
    output = tmp_path_factory.mktemp("fast")
    code, _, err = run(output, "--runs=2", FAST)
    assert code == 0 and err == "", err
    return output


@pytest.mark.parametrize(("reference", "flags"), [("one", ()), ("one_fast", (FAST,))])
def test_four_devices_train_as_one_does(
    reference: str, flags: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    one = request.getfixturevalue(reference)
    code, out, err = run(tmp_path, "--runs=2", *flags, devices=4)
    assert code == 0 and "4 devices: CPU" in out, err
    for seed in (0, 1):
        np.testing.assert_allclose(losses(tmp_path, seed), losses(one, seed), rtol=1e-4)
        assert RunFolder(tmp_path / f"run/seed-{seed}").read_config()["device"]["count"] == 4
    # The same command on one device finds its results.
    assert "is finished" in run(tmp_path, *flags)[1]


def test_a_run_goes_on_with_other_devices(one: Path, tmp_path: Path) -> None:
    process = start(tmp_path, devices=4, fault="update:25")
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    code, out, err = run(tmp_path)
    assert code == 0 and "resuming at update 20 of 50" in out, err
    assert "note: this run began with another device" in out
    np.testing.assert_allclose(losses(tmp_path), losses(one), rtol=1e-4)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--devices=3"], "--batch-size must be divisible by the 3 devices. Received: 32"),
        (["--devices=5"], "--devices must be at most the 4 that are here. Received: 5"),
    ],
)
def test_devices_that_do_not_fit(flags: list[str], expected: str, tmp_path: Path) -> None:
    code, _, err = run(tmp_path, *flags, devices=4)
    assert code == 2 and expected in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_two_processes_train_as_one_does(one_fast: Path, tmp_path: Path) -> None:
    """Stopped by a SIGTERM to one of them, then resumed by the same commands."""
    processes = start_two(tmp_path, flags_of_both=(FAST,))
    metrics = tmp_path / "run/seed-0/metrics.csv"
    while not metrics.exists() or metrics.read_text().count("\n") < 2:
        assert processes[0].poll() is None
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    for code, _, err in ends(processes):
        assert code == 128 + signal.SIGTERM, err
        assert "0: checkpoint saved" in err and err.count("\n") == 1, err
    newest = checkpoint.list_checkpoints(tmp_path / "run/seed-0")[0]
    step = int(newest.stem.removeprefix("step-"))
    assert 10 < step < 50
    (code, out, err), other = ends(start_two(tmp_path, flags_of_both=(FAST,)))
    assert code == 0 and f"resuming at update {step} of 50" in out and err == "", err
    assert "4 devices: CPU" in out
    assert other[0] == 0 and other[1].count("\n") == 1 and other[2] == "", other
    np.testing.assert_allclose(losses(tmp_path), losses(one_fast), rtol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_dies_the_other_ends_and_the_same_commands_resume(
    victim: int, one: Path, tmp_path: Path
) -> None:
    faults = ("update:15", "none") if victim == 0 else ("none", "update:15")
    processes = start_two(tmp_path, faults=faults)
    processes[victim].wait(timeout=200)
    died = time.monotonic()
    code, _, err = ends(processes)[1 - victim]
    assert time.monotonic() - died < 60
    assert code != 0, err
    (code, out, err), other = ends(start_two(tmp_path))
    assert code == 0 and "resuming at update 10 of 50" in out, err
    assert other[0] == 0, other
    np.testing.assert_allclose(losses(tmp_path), losses(one), rtol=1e-4)


def test_the_other_process_reads_and_writes_no_run_folder(tmp_path: Path) -> None:
    """As on two hosts without a shared disk."""
    flags = (f"--output-dir={tmp_path / 'other'}",)
    for code, _, err in ends(start_two(tmp_path / "first", flags_of_second=flags)):
        assert code == 0, err
    assert (tmp_path / "first/run/seed-0/results.json").exists()
    assert not (tmp_path / "other").exists()
    again = ends(start_two(tmp_path / "first", flags_of_second=flags))
    assert [code for code, *_ in again] == [0, 0] and "is finished" in again[0][1]


def test_an_error_of_process_0_is_told_by_both(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/seed-0").write_text("in the way")
    for k, (code, _, err) in enumerate(ends(start_two(tmp_path))):
        assert code == 2 and err.count("\n") == 1 and "seed-0" in err, err
        assert err.startswith("error: process 0: " if k else "error: ")


@pytest.mark.parametrize("flag", ["--seed=1", "--restart"])
def test_processes_with_other_flags_are_refused(flag: str, tmp_path: Path) -> None:
    for code, _, err in ends(start_two(tmp_path, flags_of_second=(flag,))):
        assert code == 2 and err.count("\n") == 1, err
        assert f"{flag.partition('=')[0]} must be the same for all processes" in err


@pytest.mark.parametrize("flags", [(), ("--devices=1",)])
def test_processes_with_unequal_numbers_of_devices(flags: tuple[str, ...], tmp_path: Path) -> None:
    for code, _, err in ends(start_two(tmp_path, flags_of_both=flags, devices=(2, 1))):
        assert code == 2 and err.count("\n") == 1, err
        assert "must have the same number of devices. Received: [2, 1]" in err, err


def test_a_signal_at_the_end_of_a_seed_stops_all(tmp_path: Path) -> None:
    """It comes to process 0 after the last update of the first of two seeds."""
    faults = ("signal_at_save", "none")
    for code, out, err in ends(start_two(tmp_path, faults, flags_of_both=("--runs=2",))):
        assert code == 128 + signal.SIGTERM, (out, err)
    assert (tmp_path / "run/seed-0/results.json").exists()
    assert not (tmp_path / "run/seed-1").exists()
