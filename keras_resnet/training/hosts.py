"""Several processes that train one run together, on one host or many (JAX).

All of them are given the same command and take the same branches. Process 0 alone reads, writes and prints
what belongs to a run; `on_first` gives the others what it has read, or its error. Inside `together()` an
error of any process is raised on all; outside, JAX ends the others when one of them ends.

JAX knows the processes of a TPU pod, Slurm or Open MPI. Elsewhere Keras's variables name them:
KERAS_DISTRIBUTION_JOB_ADDRESSES (host:port of process 0, and of the others if you like, with commas),
KERAS_DISTRIBUTION_NUM_PROCESSES (1: train alone, whatever JAX knows) and KERAS_DISTRIBUTION_PROCESS_ID.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import msgspec
import numpy as np

from keras_resnet import console
from keras_resnet.errors import LOST, UserError

ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
PROCESS = "KERAS_DISTRIBUTION_PROCESS_ID"
JOIN_SECONDS = 120.0  # how long a process waits for the others at the start
SILENT_SECONDS = 30  # a process that is silent for so long is lost
_MESSAGE_BYTES = 1000  # of an error that is told to the others


def join() -> None:
    """Wait for the other processes of this run, if it has others. Call it before anything is computed.

    Raises:
        UserError: where the variables make no sense, the backend is not JAX, or a process did not come.
    """
    named = _named_processes()
    on_jax = keras.backend.backend() == "jax"
    if named and not on_jax:
        raise UserError(
            f"several processes train together on JAX only. Received: {PROCESSES}={named[1]} "
            f"and Keras's backend {keras.backend.backend()}; set KERAS_BACKEND=jax"
        )
    # Of a single task, Slurm's and Open MPI's too, JAX would use one GPU only.
    alone = "1" in map(os.environ.get, (PROCESSES, "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    if not on_jax or (alone and not named):
        return
    import jax

    if jax.distributed.is_initialized():
        return
    if named:
        _wait_for_all(*named)
        addresses, processes, process = named
        _initialize(addresses[0], processes, process, coordinator_bind_address=addresses[0])
    else:
        _initialize()
    if not is_first():
        console.silence()


def _named_processes() -> tuple[list[str], int, int] | None:
    """Addresses, how many processes and which one this is, as Keras's variables say; None for one process."""
    addresses, processes, process = (os.environ.get(n, "") for n in (ADDRESSES, PROCESSES, PROCESS))
    if processes in ("", "1"):
        if process not in ("", "0"):
            raise UserError(f"{PROCESS} is {process}, so {PROCESSES} must be 2 or more; set it")
        return None
    _, _, port = addresses.split(",")[0].rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(
            f"{ADDRESSES} must be host:port of process 0. Received: {addresses or 'nothing'}"
        )
    if not processes.isdecimal() or not process.isdecimal() or int(process) >= int(processes):
        raise UserError(
            f"{PROCESSES} must be the number of processes, and {PROCESS} one of 0, 1, 2, ... for each. "
            f"Received: {processes} and {process or 'nothing'}"
        )
    return addresses.split(","), int(processes), int(process)


def _wait_for_all(addresses: list[str], processes: int, process: int) -> None:
    """Wait until all processes are here, else name who is missing: JAX would abort without a name."""
    console.print_line(f"process {process} waits for all {processes} at {addresses[0]}")
    host, _, port = addresses[0].rpartition(":")
    address, end = (host, int(port)), time.monotonic() + JOIN_SECONDS
    missing = _call_roll(address, processes, end) if process == 0 else [0]
    while process > 0 and missing == [0] and (left := end - time.monotonic()) > 0:
        # Until process 0 listens the connection is refused.
        with contextlib.suppress(OSError), socket.create_connection(address, left) as call:
            call.settimeout(JOIN_SECONDS + 5)  # process 0 may have begun to wait later
            call.sendall(bytes(str(process), "ascii"))
            missing = msgspec.json.decode(call.makefile("rb").read() or b"[0]")
        time.sleep(0.1)
    if missing:
        names = [f"{k} ({addresses[k]})" if k < len(addresses) else str(k) for k in missing]
        raise UserError(
            f"all {processes} processes of this run must be started within {JOIN_SECONDS:.0f} s. Missing: "
            f"process {', '.join(names)}; give the same command on every host",
            exit_code=LOST,
        )


def _call_roll(address: tuple[str, int], processes: int, end: float) -> list[int]:
    """On process 0: wait until all others have connected, then tell each of them who has not."""
    try:
        server = socket.create_server(address)
    except OSError as error:
        raise UserError(
            f"{ADDRESSES} must begin with an address and a free port of this host, which is process 0. "
            f"Received: {address[0]}:{address[1]} ({error.strerror or error})"
        ) from None
    calls: dict[int, socket.socket] = {}
    while missing := [k for k in range(1, processes) if k not in calls]:
        if (left := end - time.monotonic()) <= 0:
            break
        with contextlib.suppress(OSError, ValueError):  # time is up, or a stranger has connected
            server.settimeout(left)
            call, _ = server.accept()
            call.settimeout(1)
            calls[int(call.recv(8))] = call
    for call in calls.values():
        with contextlib.suppress(OSError), call:
            call.sendall(msgspec.json.encode(missing))
            call.shutdown(socket.SHUT_WR)
            call.recv(1)  # the other side closes first, as JAX takes this port next
    server.close()
    return missing


def _initialize(*arguments: Any, **options: Any) -> None:
    """`jax.distributed.initialize`, in a thread: in the main one, Ctrl-C would not end its waiting."""
    import jax

    done: concurrent.futures.Future[None] = concurrent.futures.Future()
    options["initialization_timeout"] = 2 * int(JOIN_SECONDS)  # it aborts then: end before
    options["heartbeat_timeout_seconds"] = SILENT_SECONDS
    options["shutdown_timeout_seconds"] = SILENT_SECONDS // 2

    def initialize() -> None:
        try:
            done.set_result(jax.distributed.initialize(*arguments, **options))
        except Exception as error:
            done.set_exception(error)

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
    threading.Thread(target=initialize, daemon=True).start()
    try:
        done.result(JOIN_SECONDS)
    except TimeoutError:
        raise UserError(
            f"all processes that JAX knows must be started within {JOIN_SECONDS:.0f} s, but one is missing; "
            f"give the same command on every host, or set {PROCESSES}=1 to train alone",
            exit_code=LOST,
        ) from None
    except Exception:
        if arguments:
            raise
        # JAX knows no other processes, or has computed before: then this process trains alone.


def count() -> int:
    """How many processes train this run."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count()


def index() -> int:
    """Which of them this is, from 0."""
    if keras.backend.backend() != "jax":
        return 0
    import jax

    return jax.process_index()


def is_first() -> bool:
    """Whether this is process 0, which reads, writes and prints for all."""
    return index() == 0


def agree(value: int) -> int:
    """The largest of the processes' values (int32). All of them must call it at the same update."""
    return int(np.max(_gather(np.int32(value))))


def broadcast(value: Any) -> Any:
    """What process 0 gives, on all: None, numbers, text, lists, dicts with text as keys, NumPy arrays.

    With several processes tuples become lists, and dataclasses dicts, on process 0 too.
    """
    if count() == 1:
        return value
    from jax.experimental import multihost_utils

    packed = msgspec.msgpack.encode(value, enc_hook=_pack_array) if is_first() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(packed))))
    words = np.zeros(-(-size // 4), np.int32)
    words.view(np.uint8)[: len(packed)] = np.frombuffer(packed, np.uint8)
    words = np.asarray(multihost_utils.broadcast_one_to_all(words))
    return msgspec.msgpack.decode(words.tobytes()[:size], ext_hook=_unpack_array)


def _pack_array(array: Any) -> msgspec.msgpack.Ext:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return msgspec.msgpack.Ext(1, buffer.getvalue())


def _unpack_array(code: int, data: memoryview) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def on_first(act: Callable[[], Any]) -> Any:
    """What a function gives on process 0, the only one that calls it, or its error: on all processes.

    It may give what `broadcast` can send.
    """
    value = None
    with together():
        if is_first():
            value = act()
    return broadcast(value)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Raise on all processes what one of them raises in this block, as a UserError.

    All must enter it, and nothing in it may wait for another process: neither `broadcast`, `agree` or
    `together`, nor a computation on the devices of all.
    """
    raised: Exception | None = None
    try:
        yield
    except Exception as error:
        if count() == 1:
            raise
        raised = error
    if count() == 1:
        return
    message = b""
    if raised is not None:
        text = str(raised) if isinstance(raised, UserError) else repr(raised)
        message = bytes([getattr(raised, "exit_code", 1)]) + text.encode()[: _MESSAGE_BYTES - 1]
    messages = _gather(np.frombuffer(message.ljust(_MESSAGE_BYTES, b"\0"), np.uint8))
    if raised is not None:
        raise raised
    for k, row in enumerate(messages):
        if row[0]:
            text = row[1:].tobytes().rstrip(b"\0").decode(errors="replace")
            raise UserError(f"process {k}: {text}", exit_code=int(row[0]))


def check_same(settings: Mapping[str, Any]) -> None:
    """Raise UserError, on all processes, where one was given other settings than process 0."""
    if count() == 1:
        return
    # Lists and tuples are the same in JSON.
    mine: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(settings)))
    first = broadcast(mine)
    with together():
        for name in {**first, **mine}:
            if first.get(name) != mine.get(name):
                raise UserError(
                    f"`{name}` must be the same for all processes. Received: {first.get(name)} by process 0, "
                    f"{mine.get(name)} by process {index()}"
                )


def _gather(value: Any) -> np.ndarray:
    """The values of all processes, stacked."""
    if count() == 1:
        return np.asarray(value)[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(value))
