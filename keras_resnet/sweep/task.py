"""The Ray task: one training in a separate process, and a pipe that ends it.

The task holds one end of the pipe and the process the other. When the task ends or its worker is killed, the
kernel closes the pipe, and the training saves a checkpoint and ends. Ray's workers import this module, so it
imports nothing heavy.
"""

import faulthandler
import glob
import importlib.util
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import filelock

GRACE = 12.0  # seconds that a training has to save a checkpoint in, before it ends in any case
END = GRACE + 3  # seconds after which the task kills it


class Job(NamedTuple):
    """What a worker needs to know of a run."""

    command: list[str]  # arguments of Python
    log: str  # the file that the process writes to
    output: str  # folder, in which the driver holds the file `lock`
    data: str | None  # pattern of a path of the data set; None for the synthetic one
    environment: dict[str, str]  # variables for the process


class Outcome(NamedTuple):
    """How a training ended."""

    node: str  # Ray's id
    code: int = 0  # exit code of the process, or minus the signal that killed it
    problem: str = ""  # why the node did not start it


def find_problem(job: Job) -> str:
    """Why this node cannot train a run, in a few words; empty where it can."""
    lock = os.path.join(job.output, "lock")
    if not os.path.isfile(lock):
        return f"does not see {job.output}"
    try:
        with filelock.FileLock(lock, blocking=False):
            return f"does not see the locks of other nodes in {job.output}"
    except filelock.Timeout:
        pass  # as it should be
    except OSError as error:
        return f"cannot write to {job.output} ({error.strerror})"
    if job.data and not glob.glob(job.data):
        return f"has no {job.data}"
    return "" if importlib.util.find_spec("keras") else f"has no Keras for {sys.executable}"


def train(job: Job) -> Outcome:
    """Train a run to its end. Where this task is cancelled, the training saves a checkpoint and ends."""
    import ray

    # `ray.cancel` needs this handler, which is missing where the cluster was started with a shell's `&`.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    node, host = ray.get_runtime_context().get_node_id(), socket.gethostname()
    if reason := find_problem(job):
        return Outcome(node, problem=f"{host} {reason}")
    # A checkout is not on the path of the process.
    paths = [str(Path(__file__).resolve().parents[2])]
    paths += filter(None, [job.environment.get("PYTHONPATH"), os.environ.get("PYTHONPATH")])
    with open(job.log, "ab") as log:
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} on {host}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *job.command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **job.environment, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C on the terminal is for the driver alone
        )
    try:
        while process.poll() is None:
            time.sleep(0.1)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
    return Outcome(node, process.returncode)


def run_command() -> None:
    """Run `keras-resnet` with the arguments of this process, until the pipe at its stdin closes."""
    # Ray's workers block SIGINT, a shell's `&` ignores it, and child processes inherit both.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    runpy.run_module("keras_resnet", run_name="__main__", alter_sys=True)


def _end_with_stdin() -> None:
    while os.read(0, 1):
        pass
    # This timer ends the process even where Python is stuck inside a library. Its stack traces are dropped.
    faulthandler.dump_traceback_later(GRACE, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    run_command()
