"""The processes of one run, as real processes on this machine: what they exchange, and how they end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest

from keras_resnet.errors import LOST, UserError
from keras_resnet.training import hosts

DRIVER = Path(__file__).parents[1] / "training/hosts_driver.py"
on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras's backend is not JAX")


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(case: str, *processes: int, addresses: str, count: int = 2) -> list[subprocess.Popen]:
    variables = {hosts.ADDRESSES: addresses, hosts.PROCESSES: str(count)}
    return [
        subprocess.Popen(
            [sys.executable, str(DRIVER), case],
            env={**os.environ, **variables, hosts.PROCESS: str(process)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in processes
    ]


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Exit code and stderr of each."""
    errors = [process.communicate(timeout=200)[1] for process in processes]
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


@on_jax
@pytest.mark.parametrize(
    ("case", "code", "expected"),
    [
        (
            "exchange",
            0,
            "2 9 {'a': array([0., 1., 2., 3., 4.], dtype=float32), 'rows': [(1000000000",
        ),
        ("error", 3, "error: --data-dir holds no CIFAR-10\n"),
        ("settings", 2, "must be the same for all processes. Received: "),
    ],
)
def test_what_process_0_has_is_on_all(case: str, code: int, expected: str) -> None:
    found = ends(start(case, 0, 1, addresses=free_address()))
    for ended, err in found:
        assert ended == code and expected in err and err.count("\n") == 1, err
    if case == "settings":
        assert "--learning-rate 0.1 on process 0, 0.2 here" in found[1][1]


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize("case", ["crash", "death"])
def test_when_one_process_ends_the_other_ends_within_a_minute(case: str) -> None:
    begin = time.monotonic()
    for code, err in ends(start(case, 0, 1, addresses=free_address())):
        assert code != 0, err
    assert time.monotonic() - begin < 70


@on_jax
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_does_not_come(process: int) -> None:
    ((code, err),) = ends(start("short", process, addresses=free_address()))
    assert code == LOST and err.count("\n") == 1, err
    assert "must be started within 3 s" in err and f"Received: process {process} of 2 alone" in err


@on_jax
def test_waiting_for_the_others_can_be_stopped() -> None:
    (process,) = start("exchange", 0, addresses=free_address())
    assert process.stdout is not None and "waits for the others at" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert ends([process]) == [(128 + signal.SIGTERM, "stopped by SIGTERM\n")]


@pytest.mark.parametrize(
    ("addresses", "count", "process"),
    [
        ("", "", "1"),
        ("", "2", "0"),
        ("localhost", "2", "0"),
        ("127.0.0.1:99999", "2", "0"),
        ("127.0.0.1:1234", "2", ""),
        ("127.0.0.1:1234", "two", "0"),
        ("127.0.0.1:1234", "2", "2"),
    ],
)
def test_variables_that_make_no_sense(
    addresses: str, count: str, process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hosts.ADDRESSES, addresses)
    monkeypatch.setenv(hosts.PROCESSES, count)
    monkeypatch.setenv(hosts.PROCESS, process)
    received = (
        f"Received: {addresses or 'nothing'}, {count or 'nothing'} and {process or 'nothing'}"
    )
    with pytest.raises(UserError, match=re.escape(received)):
        hosts.join()
