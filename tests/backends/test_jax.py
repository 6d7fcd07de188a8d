"""JAX on several devices and processes: the numbers of one device, and an end in one line when one dies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet.errors import LOST, USER_ERROR, UserError
from keras_resnet.runs import checkpoint
from keras_resnet.runs.folder import RunFolder
from keras_resnet.training import hosts

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


def start_one(output: Path, port: int) -> subprocess.Popen:
    """Process 0 of two, whose peer does not come."""
    return start(
        output,
        KERAS_DISTRIBUTION_JOB_ADDRESSES=f"127.0.0.1:{port}",
        KERAS_DISTRIBUTION_NUM_PROCESSES="2",
        KERAS_DISTRIBUTION_PROCESS_ID="0",
    )


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    found = []
    for process in processes:
        out, err = process.communicate(timeout=200)
        found.append((process.returncode, out, err))
    return found


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
    assert other[0] == 0 and other[1].count("\n") == 1 and other[2] == ""
    np.testing.assert_allclose(losses(tmp_path), losses(one_fast), rtol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_another_command_trains_the_second_seed_while_the_first_is_trained(
    one: Path, tmp_path: Path
) -> None:
    """It is killed after a checkpoint: both processes go on from that."""
    alone = start(tmp_path / "alone", "--seed=1", fault="update:25")
    alone.communicate(timeout=200)
    processes = start_two(tmp_path, flags_of_both=("--runs=2",))
    while not (tmp_path / "run/seed-0/config.json").exists():
        assert processes[0].poll() is None
        time.sleep(0.01)
    shutil.copytree(tmp_path / "alone/run/seed-1", tmp_path / "run/seed-1")
    (code, out, err), other = ends(processes)
    assert code == 0 and "resuming at update 20 of 50" in out, (out, err)
    assert other[0] == 0, other
    for seed in (0, 1):
        np.testing.assert_allclose(losses(tmp_path, seed), losses(one, seed), rtol=1e-4)


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_dies_the_other_ends_in_one_line(victim: int, tmp_path: Path) -> None:
    faults = ("update:15", "none") if victim == 0 else ("none", "update:15")
    processes = start_two(tmp_path, faults=faults)
    processes[victim].wait(timeout=200)
    died = time.monotonic()
    code, _, err = ends(processes)[1 - victim]
    assert time.monotonic() - died < 60
    assert code == LOST, err
    assert "another process of this run did not come, has ended" in err and err.count("\n") == 1, (
        err
    )
    files = [path.name for path in checkpoint.list_checkpoints(tmp_path / "run/seed-0")]
    assert files == ["step-00000010.npz"]


def test_full_memory_is_not_told_as_a_lost_process() -> None:
    code = (
        "import jax; from keras_resnet.commands import supervisor;"
        "supervisor.leave(jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: no 99 bytes\\nstack'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == USER_ERROR and done.stderr.count("\n") == 1, done.stderr
    assert "--batch-size" in done.stderr and "no 99 bytes" in done.stderr


def test_processes_with_other_flags_are_refused(tmp_path: Path) -> None:
    for code, _, err in ends(start_two(tmp_path, flags_of_second=("--seed=1",))):
        assert code == 2 and err.count("\n") == 1, err
        assert "all processes must have the same flags" in err and "by process 1" in err


def test_restart_on_one_process_alone_is_refused(tmp_path: Path) -> None:
    for code, _, err in ends(start_two(tmp_path, flags_of_second=("--restart",))):
        assert code == 2 and "all processes must have the same flags" in err, err


@pytest.mark.parametrize("flags", [(), ("--devices=1",)])
def test_processes_with_unequal_numbers_of_devices(flags: tuple[str, ...], tmp_path: Path) -> None:
    for code, _, err in ends(start_two(tmp_path, flags_of_both=flags, devices=(2, 1))):
        assert code == 2 and err.count("\n") == 1, err
        assert "must have the same number of devices. Received: [2, 1]" in err, err


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PROCESS_ID": "1"}, "NUM_PROCESSES must be 2 or more"),
        ({"NUM_PROCESSES": "2", "PROCESS_ID": "0"}, "host:port of process 0. Received: nothing"),
        (
            {"JOB_ADDRESSES": "localhost", "NUM_PROCESSES": "2", "PROCESS_ID": "0"},
            "must be host:port of process 0. Received: localhost",
        ),
        (
            {"JOB_ADDRESSES": "127.0.0.1:99999", "NUM_PROCESSES": "2", "PROCESS_ID": "0"},
            "must be host:port of process 0. Received: 127.0.0.1:99999",
        ),
        (
            {"JOB_ADDRESSES": "127.0.0.1:1234", "NUM_PROCESSES": "2"},
            "PROCESS_ID must be 0 to 1, another one for each process. Received: nothing",
        ),
        (
            {"JOB_ADDRESSES": "127.0.0.1:1234", "NUM_PROCESSES": "two", "PROCESS_ID": "0"},
            "NUM_PROCESSES must be the number of processes. Received: two",
        ),
    ],
)
def test_variables_that_make_no_sense(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    with pytest.raises(UserError, match=re.escape(expected)):
        hosts.place()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = ends([start_one(tmp_path, taken.getsockname()[1])])[0]
    assert code == 2 and "a free port of this host" in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("signum", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_waiting_for_the_others_can_be_ended(signum: int, word: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start_one(tmp_path, port)
    assert process.stdout is not None
    while "waits for all 2" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(signum)
    code, _, err = ends([process])[0]
    assert code == 128 + signum and err == f"{word}\n", err


def test_a_signal_at_the_end_of_a_seed_stops_all(tmp_path: Path) -> None:
    """It comes to one of them after the last update of the first of two seeds."""
    faults = ("none", "signal_at_save")
    for code, out, err in ends(start_two(tmp_path, faults, flags_of_both=("--runs=2",))):
        assert code == 128 + signal.SIGTERM, (out, err)
    assert (tmp_path / "run/seed-0/results.json").exists()
    assert not (tmp_path / "run/seed-1").exists()
