"""A Ray cluster to train on: a running one, or one of this machine alone for the time of a sweep."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.sweep import task
from keras_resnet.sweep.task import Job

CONNECT_SECONDS = 10.0
CHECK_SECONDS = 60.0  # for all nodes together: each starts a worker and looks at its folders
_WARNINGS = re.compile(rb"\[.*gcs_client\.cc:")  # one per second while a cluster refuses us


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be the driver of a Ray cluster.

    Args:
        address: `"auto"` or `"host:port"` of a running cluster that this machine is a node of. None
            starts Ray here, on the loopback address alone, and stops it at the end.

    Raises:
        UserError: where Ray cannot be joined or does not start.
        ModuleNotFoundError: for Ray or rich.
    """
    if address is not None and not re.fullmatch(r"auto|[\w.-]+:\d{1,5}", address, re.ASCII):
        raise UserError(f"`address` must be auto or HOST:PORT. Received: {address}")
    # Ray reads these variables when it is imported.
    tokens = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if any(map(os.environ.get, tokens)) or os.path.isfile(os.path.expanduser("~/.ray/auth_token")):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = (
            "0"  # all services on the loopback address
        )
        os.environ["RAY_kill_child_processes_on_worker_exit"] = "0"  # noqa: SIM112  they save first
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no reports to the makers of Ray
        # Near Ray's minimum: only exit codes go through it.
        options |= {"include_dashboard": False, "object_store_memory": 80 << 20}
    import ray
    import rich  # noqa: F401  else it would be missing after Ray has started

    terminate = signal.getsignal(
        signal.SIGTERM
    )  # Ray puts an exit without cleaning up in its place
    # In /tmp, as the path of a socket has at most 107 characters, of which Ray takes 80.
    parent = "/tmp" if os.access("/tmp", os.W_OK) else None
    with tempfile.TemporaryDirectory("", "kr-", parent, ignore_cleanup_errors=True) as folder:
        try:
            if address is None:
                options["_temp_dir"] = folder
            elif address != "auto":
                host, _, port = address.rpartition(":")
                # Where nobody answers, Ray would try for minutes.
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            with console.without_lines(_WARNINGS):
                ray.init(address=address or "local", **options)
            signal.signal(signal.SIGTERM, terminate)
        except Exception as error:  # Ray raises many kinds
            reason = " ".join(str(error).split())[:300]
            if address is None:
                raise UserError(f"Ray did not start ({reason})") from None
            raise UserError(
                f"no Ray cluster could be joined at {address} ({reason}); start this machine's node with "
                "`ray start --address=HOST:PORT`. A cluster that was started with a token asks for it: "
                "copy ~/.ray/auth_token of its head node to this machine, or set RAY_AUTH_TOKEN"
            ) from None
        try:
            yield
        finally:
            ray.shutdown()


def living_nodes() -> list[dict[str, Any]]:
    """The nodes of the cluster as Ray describes them: NodeID, NodeManagerHostname, Resources."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def check_nodes(job: Job, share: Mapping[str, float]) -> None:
    """Ask all nodes at once whether they can train; those too small for what one run takes are not asked.

    Raises:
        UserError: where a node cannot, or does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    check = ray.remote(num_cpus=0, max_retries=0)(task.problem)
    hosts = {}
    for node in living_nodes():
        if all(node["Resources"].get(name, 0.0) >= amount for name, amount in share.items()):
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answer = check.options(scheduling_strategy=place).remote(job)
            hosts[answer] = node["NodeManagerHostname"]
    if hosts:
        ray.wait(list(hosts), num_returns=len(hosts), timeout=CHECK_SECONDS)
    problems: dict[str, list[str]] = {}
    for answer, host in hosts.items():
        try:
            problem = ray.get(answer, timeout=1)
        except ray.exceptions.TaskUnschedulableError:
            continue  # the node has left the cluster since
        except ray.exceptions.RayError as error:
            problem = f"could not run keras_resnet.sweep.task ({type(error).__name__})"
        if problem:
            problems.setdefault(problem, []).append(host)
    if problems:
        listed = "; ".join(f"{', '.join(where)} {problem}" for problem, where in problems.items())
        raise UserError(
            "all nodes must see the output folder, its locks and the data, and have this package. "
            f"Received: {listed}. Name shared folders with `output_dir` and `data_dir`, or take the node "
            "out of the cluster. `train` downloads a data set, a sweep does not"
        )
