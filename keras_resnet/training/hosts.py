"""Several processes that train one run together, on one host or many (JAX).

All of them are given the same command and take the same branches. Process 0 alone reads, writes and prints
what belongs to a run; `on_first` gives the others what it has read, or its error. Where one process ends
otherwise, JAX ends the others within a minute.

JAX knows the processes of a TPU pod, Slurm or Open MPI. Elsewhere Keras's variables name them:
KERAS_DISTRIBUTION_JOB_ADDRESSES (host:port of process 0, and of the others if you like, with commas),
KERAS_DISTRIBUTION_NUM_PROCESSES (1: train alone, whatever JAX knows) and KERAS_DISTRIBUTION_PROCESS_ID.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_resnet import console
from keras_resnet.errors import LOST, UserError

ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
PROCESS = "KERAS_DISTRIBUTION_PROCESS_ID"
JOIN_SECONDS = 120.0  # how long a process waits for the others at the start
SILENT_SECONDS = 30  # a process that is silent for so long is lost


def join() -> None:
    """Wait for the other processes of this run, if it has others. Call it before anything is computed.

    Raises:
        UserError: where the variables make no sense, the backend is not JAX, or a process did not come.
    """
    named = _named_processes()
    if keras.backend.backend() != "jax":
        if named:
            raise UserError(
                f"several processes train together on JAX only. Received: {PROCESSES}={named[1]} and "
                f"Keras's backend {keras.backend.backend()}; set KERAS_BACKEND=jax"
            )
        return
    import jax

    # Of a single task, Slurm's and Open MPI's too, JAX would use one GPU only.
    alone = "1" in map(os.environ.get, (PROCESSES, "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    if jax.distributed.is_initialized() or (alone and not named):
        return
    arguments: dict[str, Any] = {
        "initialization_timeout": int(JOIN_SECONDS),
        "heartbeat_timeout_seconds": SILENT_SECONDS,
        "shutdown_timeout_seconds": SILENT_SECONDS // 2,
    }
    if named:
        _wait_for_all(*named)
        addresses, arguments["num_processes"], arguments["process_id"] = named
        arguments["coordinator_address"] = arguments["coordinator_bind_address"] = addresses[0]
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError):
        if named:
            raise
        # JAX knows no other processes, or has computed before: then this process trains alone.
    if not is_first():
        console.silence()


def _named_processes() -> tuple[list[str], int, int] | None:
    """Addresses, how many processes and which one this is, as Keras's variables say; None for one process."""
    addresses, processes, process = (os.environ.get(n, "") for n in (ADDRESSES, PROCESSES, PROCESS))
    if processes in ("", "1") and process in ("", "0"):
        return None
    try:
        port, named = (
            int(addresses.split(",")[0].rpartition(":")[2]),
            (int(processes), int(process)),
        )
        if not (0 < port < 2**16 and 0 <= named[1] < named[0]):
            raise ValueError
    except ValueError:
        raise UserError(
            f"{ADDRESSES} must be host:port of process 0, {PROCESSES} the number of processes, and "
            f"{PROCESS} one of 0, 1, 2, ... for each. Received: {addresses or 'nothing'}, "
            f"{processes or 'nothing'} and {process or 'nothing'}"
        ) from None
    return addresses.split(","), *named


def _wait_for_all(addresses: list[str], processes: int, process: int) -> None:
    """Wait until all processes are here, else name who is missing: JAX would abort without a name."""
    console.print_line(f"process {process} waits for all {processes} at {addresses[0]}")
    host, _, port = addresses[0].rpartition(":")
    address, end = (host, int(port)), time.monotonic() + JOIN_SECONDS
    missing = _call_roll(address, processes, end) if process == 0 else [0]
    while process > 0 and missing == [0] and (left := end - time.monotonic()) > 0:
        # Until process 0 listens, the connection is refused.
        with contextlib.suppress(OSError), socket.create_connection(address, left) as call:
            call.settimeout(JOIN_SECONDS + 5)  # process 0 may have begun to wait later
            call.sendall(str(process).encode())
            missing = json.loads(call.makefile("rb").read() or b"[0]")
        time.sleep(0.1)
    if missing:
        names = [f"{k} ({addresses[k]})" if k < len(addresses) else str(k) for k in missing]
        raise UserError(
            f"all {processes} processes of this run must be started within {JOIN_SECONDS:.0f} s. Missing: "
            f"process {', '.join(names)}; give the same command on every host",
            exit_code=LOST,
        )


def _call_roll(address: tuple[str, int], processes: int, end: float) -> list[int]:
    """On process 0: wait until all others have connected, then send each of them who has not."""
    calls: dict[int, socket.socket] = {}
    try:
        server = socket.create_server(address)
    except OSError as error:
        raise UserError(
            f"{ADDRESSES} must begin with an address and a free port of this host, which is process 0. "
            f"Received: {address[0]}:{address[1]} ({error.strerror or error})"
        ) from None
    with server:
        while len(calls) < processes - 1 and (left := end - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(
                OSError, ValueError
            ):  # time is up, or a stranger has connected
                call = server.accept()[0]
                call.settimeout(1)
                calls[int(call.recv(8))] = call
        missing = [k for k in range(1, processes) if k not in calls]
        for call in calls.values():
            with contextlib.suppress(OSError), call:
                call.sendall(json.dumps(missing).encode())
                call.shutdown(socket.SHUT_WR)
                call.recv(1)  # the other side closes first, as JAX takes this port next
    return missing


def count() -> int:
    """How many processes train this run."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count()


def is_first() -> bool:
    """Whether this is process 0, which reads, writes and prints for all."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return jax.process_index() == 0


def agree(value: int) -> int:
    """The largest of the processes' values (int32). All of them must call it at the same update."""
    if count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def broadcast(value: Any) -> Any:
    """What process 0 gives, on all: anything that can be pickled, as the processes trust each other."""
    if count() == 1:
        return value
    from jax.experimental import multihost_utils

    packed = np.frombuffer(pickle.dumps(value) if is_first() else b"", np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(packed))))
    if not is_first():
        packed = np.zeros(size, np.uint8)
    return pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(packed)).tobytes())


def on_first(act: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives on process 0, the only one that calls it, or its UserError: on all processes."""
    value, error = None, None
    if is_first():
        try:
            value = act(*arguments)
        except UserError as raised:
            error = raised
    value, error = broadcast((value, error))
    if error is not None:
        raise error
    return value


def check_same(settings: Mapping[str, Any]) -> None:
    """Raise UserError, on all processes, where one was given other settings than process 0."""
    first = broadcast(settings)
    different = [
        f"`{name}` {first[name]} on process 0, {value} here"
        for name, value in settings.items()
        if first[name] != value
    ]
    if agree(len(different)):
        raise UserError(
            "the settings must be the same for all processes. Received: "
            + ("; ".join(different) or "others by another process, which names them")
        )
