"""A Ray cluster to run on: a running one, or one of this machine alone for as long as a sweep lasts."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_resnet.errors import UserError
from keras_resnet.sweep import run
from keras_resnet.sweep.run import Job

_PREFIX = "kr-"  # short: a socket's path has at most 107 characters, and Ray adds 80
OBJECT_STORE_BYTES = 80 << 20  # near Ray's least; events of a hundred bytes go through it
CONNECT_SECONDS = 10.0
CHECK_SECONDS = 60.0  # for a node to start a worker and look at its disks


def require_ray() -> None:
    """Raise UserError, saying how to install it, where Ray or rich is missing."""
    try:
        import ray  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"a sweep needs {error.name}, which is not installed: pip install -r "
            "requirements-sweep.txt, or this package with its extra [sweep]"
        ) from None


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be the driver of a cluster.

    Args:
        address: `"auto"` or `"host:port"` of a running cluster that this machine is a node of. None
            starts Ray here, on the loopback address alone, and ends it again.

    Raises:
        UserError: where Ray is not installed, is not there or does not start.
    """
    if address is not None and not re.fullmatch(r"auto|[\w.-]+:\d{1,5}", address, re.ASCII):
        raise UserError(f"`address` must be auto or HOST:PORT. Received: {address}")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    folder = None
    if address is None:
        # Read when Ray is imported. It makes Ray take the loopback address for all its services, as on
        # macOS; `_node_ip_address` does not: Ray 2.60 puts the machine's own in the place of 127.0.0.1.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    require_ray()
    import ray

    # By value, so that workers need not import this package (and TensorFlow with it).
    ray.cloudpickle.register_pickle_by_value(run)
    _silence_ray()
    terminates = signal.getsignal(signal.SIGTERM)  # Ray puts an exit without a word in its place
    try:
        if address is None:
            folder = _temporary_folder()
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(folder),
                # Trainings end themselves when their worker does: after a checkpoint.
                _system_config={"kill_child_processes_on_worker_exit": False},
                **quiet,
            )
        else:
            _reach(address)
            ray.init(address=address, **quiet)
    except Exception as error:  # Ray raises many kinds
        _remove(folder)
        reason = " ".join(str(error).split())[:300]
        what = f"no Ray cluster could be joined at {address}" if address else "Ray did not start"
        raise UserError(
            f"{what} ({reason})"
            + ("; start this machine's node with `ray start --address=HOST:PORT`" * bool(address))
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminates)
    try:
        yield
    finally:
        ray.shutdown()
        _remove(folder)


def _reach(address: str) -> None:
    """Raise OSError where nobody answers. Ray itself would try for minutes, and write of it."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    host, _, port = canonicalize_bootstrap_address_or_die(address).rpartition(":")
    socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def _silence_ray() -> None:
    """Ray prints the deaths of workers and nodes in the middle of a table; we tell them ourselves."""
    import ray._private.worker as worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None


def _temporary_folder() -> Path:
    """A new folder for Ray's files; those that killed drivers have left are deleted."""
    parent = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
    for old in Path(parent).glob(f"{_PREFIX}*-*"):
        pid = old.name.removeprefix(_PREFIX).split("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdigit() and old.stat().st_uid == os.getuid() and not _alive(int(pid)):
                _remove(old)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def nodes() -> dict[str, Mapping[str, float]]:
    """Id -> resources of the living nodes: `{"CPU": 8.0, "GPU": 1.0, ...}`."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def names() -> dict[str, str]:
    """Id -> a name to print, of the nodes living and dead: the host's, numbered where it has several."""
    import ray

    found: dict[str, list[str]] = {}
    for node in sorted(ray.nodes(), key=lambda node: node["NodeID"]):
        found.setdefault(node["NodeManagerHostname"], []).append(node["NodeID"])
    return {
        node: host if len(ids) == 1 else f"{host}/{node[:4]}"
        for host, ids in found.items()
        for node in ids
    }


def check_nodes(job: Job, cpus: float, gpus: float) -> None:
    """Raise UserError where one of the nodes that runs fit on cannot do a job.

    Args:
        job: what is to be done there.
        cpus: of one run.
        gpus: of one run.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(run.unfit)
    asked = {
        node: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(job)
        for node, there in nodes().items()
        if there.get("CPU", 0.0) >= cpus and there.get("GPU", 0.0) >= gpus
    }
    wrong: dict[str, list[str]] = {}
    for node, answer in asked.items():
        try:
            why = ray.get(answer, timeout=CHECK_SECONDS)
        except ray.exceptions.TaskUnschedulableError:
            continue  # it has left the cluster since it was listed
        except ray.exceptions.RayError as error:
            why = f"did not answer ({type(error).__name__})"
        if why:
            wrong.setdefault(why, []).append(names().get(node, node))
    if wrong:
        told = "; ".join(f"{', '.join(where)} {why}" for why, where in wrong.items())
        raise UserError(
            f"all nodes must see the output folder, its locks and the data, and have this package. "
            f"Received: {told}. Name shared folders with `output_dir` and `data_dir`, or take the "
            "node out of the cluster. A data set is downloaded by the first `train` that asks for it"
        )
