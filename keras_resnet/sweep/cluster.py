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

CONNECT_SECONDS = 10.0
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


def living_nodes() -> dict[str, Mapping[str, float]]:
    """Ray's id of each living node -> what it has: `{"CPU": 8.0, "GPU": 1.0, "memory": 3e10}`."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
