"""The processes of one run, as real processes on this machine: what they exchange, and how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_resnet.errors import LOST, UserError
from keras_resnet.training import hosts

DRIVER = Path(__file__).parents[1] / "training/hosts_driver.py"
on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras's backend is not JAX")


def start(
    case: str, *processes: int, count: int = 2, addresses: str = ""
) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        addresses = addresses or f"127.0.0.1:{free.getsockname()[1]}"
    return [
        subprocess.Popen(
            [sys.executable, str(DRIVER), case],
            env={
                **os.environ,
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": addresses,
                "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count),
                "KERAS_DISTRIBUTION_PROCESS_ID": str(process),
            },
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
def test_what_process_0_has_read_is_on_all() -> None:
    for k, (code, err) in enumerate(ends(start("exchange", 0, 1))):
        assert code == 0, err
        rows = [{"step": 10**9, "loss": 0.1, "error": None}]
        assert json.loads(err) == [k, 2, 2, rows, [0, 1, 2, 3, 4], "float32", [2, 0]]


@on_jax
@pytest.mark.parametrize("process", [0, 1])
def test_an_error_of_one_process_ends_all_in_one_line(process: int) -> None:
    for k, (code, err) in enumerate(ends(start(f"error-{process}", 0, 1))):
        by = "" if k == process else f"process {process}: "
        assert (code, err) == (3, f"error: {by}--data-dir holds no CIFAR-10\n")


@on_jax
def test_other_settings_are_named() -> None:
    for code, err in ends(start("settings", 0, 1)):
        assert code == 2 and err.count("\n") == 1, err
        assert (
            "--learning-rate must be the same for all processes. Received: 0.1 by process 0, 0.2"
            in err
        )


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize("case", ["crash", "death"])
def test_when_one_process_ends_the_other_ends_within_a_minute(case: str) -> None:
    begin = time.monotonic()
    for code, err in ends(start(case, 0, 1)):
        assert code != 0, err
    assert time.monotonic() - begin < 70


@on_jax
def test_who_is_missing_is_named_on_all() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        first = f"127.0.0.1:{free.getsockname()[1]}"
    for code, err in ends(
        start("short", 0, 1, count=3, addresses=f"{first},10.0.0.2:1,10.0.0.3:1")
    ):
        assert code == LOST and err.count("\n") == 1, err
        assert "Missing: process 2 (10.0.0.3:1)" in err


@on_jax
def test_process_0_that_does_not_come_is_named() -> None:
    ((code, err),) = ends(start("short", 1))
    assert code == LOST and "Missing: process 0 (127.0.0.1:" in err, err


@on_jax
def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ((code, err),) = ends(start("short", 0, addresses=address))
    assert code == 2 and "a free port of this host" in err and err.count("\n") == 1, err


@on_jax
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_waiting_for_the_others_can_be_stopped(signum: int) -> None:
    (process,) = start("exchange", 0)
    assert process.stdout is not None and "waits for all 2" in process.stdout.readline()
    process.send_signal(signum)
    ((code, err),) = ends([process])
    name = "Ctrl-C" if signum == signal.SIGINT else "SIGTERM"
    assert (code, err) == (128 + signum, f"stopped by {name}\n")


@pytest.mark.parametrize(
    ("addresses", "count", "process", "expected"),
    [
        ("", "", "1", "NUM_PROCESSES must be 2 or more"),
        ("", "2", "0", "host:port of process 0. Received: nothing"),
        ("localhost", "2", "0", "must be host:port of process 0. Received: localhost"),
        ("127.0.0.1:99999", "2", "0", "must be host:port of process 0. Received: 127.0.0.1:99999"),
        (
            "127.0.0.1:1234",
            "2",
            "",
            "PROCESS_ID one of 0, 1, 2, ... for each. Received: 2 and nothing",
        ),
        ("127.0.0.1:1234", "two", "0", "NUM_PROCESSES must be the number of processes"),
        ("127.0.0.1:1234", "2", "2", "Received: 2 and 2"),
    ],
)
def test_variables_that_make_no_sense(
    addresses: str, count: str, process: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hosts.ADDRESSES, addresses)
    monkeypatch.setenv(hosts.PROCESSES, count)
    monkeypatch.setenv(hosts.PROCESS, process)
    with pytest.raises(UserError, match=re.escape(expected)):
        hosts.join()


def test_one_process_alone_exchanges_nothing() -> None:
    hosts.join()
    value = {"a": np.arange(3)}
    assert hosts.count() == 1 and hosts.is_first() and hosts.agree(7) == 7
    assert hosts.broadcast(value) is value
    hosts.check_same({"depth": 20})
    with pytest.raises(KeyError), hosts.together():
        raise KeyError("as it is")
