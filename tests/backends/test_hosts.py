"""How the processes of one run find each other; test_jax.py has what they compute and how they end."""

import os
import signal
import socket
import time

import keras
import pytest

from keras_resnet.errors import LOST, UserError
from keras_resnet.training import hosts
from tests.helpers import start_python

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras's backend is not JAX")
JOIN = """
import sys
from keras_resnet.commands import startup, terminal

def join():
    startup.start_keras()
    from keras_resnet.training import hosts
    hosts.JOIN_SECONDS = float(sys.argv[1])
    hosts.join()
    if hosts.is_first():
        raise RuntimeError("a bug on process 0")
    hosts.broadcast(None)

sys.exit(terminal.run(join))
"""


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(process, seconds, address=None):
    """One process of two, which waits some seconds for the other."""
    variables = {hosts.ADDRESSES: address or free_address()}
    variables |= {hosts.PROCESSES: "2", hosts.PROCESS: str(process)}
    return start_python("-c", JOIN, seconds, env={**os.environ, **variables})


def ends(processes):
    """Exit code, stdout and stderr of each."""
    outputs = [process.communicate(timeout=200) for process in processes]
    return [(p.returncode, *o) for p, o in zip(processes, outputs, strict=True)]


@on_jax
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_does_not_come(process):
    ((code, _, err),) = ends([start(process, "3")])
    assert code == LOST and err.count("\n") == 1, err
    assert "must be started within 3 s" in err and f"Received: process {process} of 2 alone" in err


@on_jax
@pytest.mark.slow
def test_a_bug_on_one_process_ends_the_other_within_a_minute():
    address, begin = free_address(), time.monotonic()
    for code, _, err in ends([start(process, "60", address) for process in (0, 1)]):
        assert code != 0, err
    assert time.monotonic() - begin < 70


@on_jax
def test_waiting_for_the_others_can_be_stopped():
    process = start(0, "300")
    assert "waits for the others at" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    ((code, _, err),) = ends([process])
    assert (code, err) == (128 + signal.SIGTERM, "stopped by SIGTERM\n")


@pytest.mark.parametrize(("address", "process"), [("localhost", "0"), ("127.0.0.1:1234", "2")])
def test_variables_that_make_no_sense(address, process, monkeypatch):
    monkeypatch.setenv(hosts.ADDRESSES, address)
    monkeypatch.setenv(hosts.PROCESSES, "2")
    monkeypatch.setenv(hosts.PROCESS, process)
    with pytest.raises(UserError, match=f"Received: {address}, 2 and {process}"):
        hosts.join()
