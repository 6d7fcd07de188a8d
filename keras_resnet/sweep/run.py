"""What runs on the nodes of a Ray cluster: looking whether a node will do, and one training as a process.

Ray gets this module by value, and it imports the standard library and Ray alone: a worker imports neither
this package nor, with it, TensorFlow.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import importlib.machinery
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

POLL = 0.1  # seconds between two looks at a training's process
END = 13.0  # seconds that it has to end, once its pipe is closed: child.GRACE and some


class Job(TypedDict):
    """What a worker must know of a training, as plain data."""

    command: list[str]  # arguments of the node's Python
    root: str | None  # a checkout to import the package from; None where it is installed
    log: str
    token: str  # a file in the output folder that the driver holds locked
    data: list[str]  # folders of the data sets; none for one that is drawn
    environment: dict[str, str]  # what the user set for training
    threads: int  # of TensorFlow, unless the user set them
    share: bool  # whether it shares its GPU


class Event(TypedDict):
    """What a training tells the driver."""

    kind: Literal["unfit", "started", "ended"]
    node: str
    why: NotRequired[str]
    code: NotRequired[int]


def unfit(job: Job) -> str:
    """Why trainings cannot run on this node; empty where they can. In a few words."""
    if not os.path.isfile(job["token"]):
        return f"does not see {os.path.dirname(job['token'])}"
    try:
        with open(job["token"], "r+") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return f"does not see the locks of other nodes in {os.path.dirname(job['token'])}"
    except OSError as error:
        return f"cannot write to {os.path.dirname(job['token'])} ({error.strerror})"
    for folder in job["data"]:
        if not glob.glob(f"{glob.escape(folder)}/*/dataset_info.json"):
            return f"has no data set in {folder}"
    places = [*([job["root"]] if job["root"] else []), *sys.path]
    for package in ("keras_resnet", "keras"):
        if importlib.machinery.PathFinder.find_spec(package, places) is None:
            return f"has no {package} for {sys.executable}"
    return ""


def train(job: Job) -> Iterator[Event]:
    """Train in a process of its own, to its end. When this task ends early, so does the process.

    Yields:
        One event where the node will not do; else one when it has started and one with its exit code.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    if why := unfit(job):
        yield {"kind": "unfit", "node": node, "why": why}
        return
    with _started(job) as process:
        yield {"kind": "started", "node": node}
        while process.poll() is None:
            time.sleep(POLL)
    yield {"kind": "ended", "node": node, "code": process.returncode}


@contextlib.contextmanager
def _started(job: Job) -> Iterator[subprocess.Popen[bytes]]:
    Path(job["log"]).parent.mkdir(parents=True, exist_ok=True)
    with open(job["log"], "ab") as log:
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        log.write(f"--- {when} on {socket.gethostname()}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *job["command"]],
            stdin=subprocess.PIPE,  # child.py ends with it
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(job),
            start_new_session=True,  # a Ctrl-C is the driver's to handle
        )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(job: Job) -> dict[str, str]:
    environment: dict[str, Any] = {**os.environ, **job["environment"]}
    environment.setdefault("TF_NUM_INTRAOP_THREADS", str(job["threads"]))
    if job["share"]:
        environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX's
    # A training is nobody's driver, and none of several processes that train one run together.
    foreign = ("RAY_", "KERAS_DISTRIBUTION_")
    environment = {k: v for k, v in environment.items() if not k.startswith(foreign)}
    if job["root"]:
        paths = [job["root"], *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment
