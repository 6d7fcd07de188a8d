"""A Ray cluster to train on: a running one, or one of this machine alone for the time of a sweep."""

import contextlib
import logging
import os
import re
import signal
import socket
import tempfile
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from keras_resnet import console
from keras_resnet.errors import UserError

CONNECT_SECONDS = 10.0
_WARNINGS = re.compile(rb"\[.*gcs_client\.cc:")  # one per second while a cluster refuses us


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be the driver of a running Ray cluster, at `"auto"` or `"host:port"`, that this machine is a node of.

    None starts Ray here, on the loopback address alone, and stops it at the end. Raises UserError where Ray
    cannot be joined or does not start.
    """
    # Ray reads these variables when it is imported.
    tokens = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if any(map(os.environ.get, tokens)) or os.path.isfile(os.path.expanduser("~/.ray/auth_token")):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        # Services listen on the loopback address; trainings may save before they end; no usage reports.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_kill_child_processes_on_worker_exit"] = "0"  # noqa: SIM112
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Near Ray's minimum: only exit codes go through it.
        options |= {"include_dashboard": False, "object_store_memory": 80 << 20}
    import ray
    import rich  # noqa: F401  if it is missing, say so before Ray starts

    # Drop what Ray prints about lost workers and nodes: the driver reports them.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    terminate = signal.getsignal(signal.SIGTERM)  # Ray's own handler exits without cleaning up
    # In /tmp, as the path of a socket has at most 107 characters, of which Ray takes 80.
    parent = "/tmp" if os.access("/tmp", os.W_OK) else None
    with tempfile.TemporaryDirectory("", "kr-", parent, ignore_cleanup_errors=True) as folder:
        try:
            if address is None:
                options["_temp_dir"] = folder
            elif address != "auto":  # where nobody answers, Ray would try for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            with console.without_lines(_WARNINGS):
                ray.init(address=address or "local", **options)
            signal.signal(signal.SIGTERM, terminate)
        except Exception as error:  # Ray raises many kinds
            reason = " ".join(str(error).split())[:300]
            if address is None:
                raise UserError(f"Ray did not start ({reason})") from None
            raise UserError(
                f"`address` must be auto or HOST:PORT of a Ray cluster. Received: {address} ({reason}). Make "
                "this machine a node of it with `ray start --address=HOST:PORT`; if it has a token, "
                "copy ~/.ray/auth_token of its head node, or set RAY_AUTH_TOKEN"
            ) from None
        try:
            yield
        finally:
            ray.shutdown()


def count_slots(share: Mapping[str, float], unfit: Collection[str] = ()) -> int:
    """How many runs train at once on the living nodes, without the `unfit` ones.

    `share` is what one run takes, as Ray counts it: `{"CPU": 1.0, "GPU": 0.25, "memory": 2e9}`.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in unfit]
    fits = [[n["Resources"].get(k, 0) / amount for k, amount in share.items()] for n in nodes]
    return sum(int(min(fit, default=0)) for fit in fits)
