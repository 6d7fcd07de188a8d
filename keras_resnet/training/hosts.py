"""Several processes that train one run together, on one host or many (JAX).

All of them are given the same command and take the same branches. Process 0 alone reads, writes and prints
what belongs to a run; `on_first` gives the others what it has read, or its error. Where one process ends
in another way, JAX ends the others within a minute. docs/backends.md says how the processes are named.
"""

import os
import pickle
import queue
import threading
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
SILENT_SECONDS = 30  # a process that is silent for this long is lost


def join() -> None:
    """Wait for the other processes of this run, if it has others. Call it before anything is computed.

    Raises UserError where variables make no sense, the backend is not JAX, or a process did not join.
    """
    named, backend = _named_processes(), keras.backend.backend()
    if backend != "jax":
        if named:
            raise UserError(
                "several processes train together on JAX only. Received: "
                f"{PROCESSES}={named['num_processes']} and Keras's backend {backend}; set KERAS_BACKEND=jax"
            )
        return
    import jax

    # In a single task, of Slurm and Open MPI too, JAX would use one GPU only.
    alone = "1" in map(os.environ.get, (PROCESSES, "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    if jax.distributed.is_initialized() or (alone and not named):
        return
    who = f"process {named['process_id']} of {named['num_processes']}" if named else "this process"
    if named:
        console.print_line(f"{who} waits for the others at {named['coordinator_address']}")
    problem = _connect(named)
    # Where nothing names others and JAX finds none, this process trains alone.
    if isinstance(problem, TimeoutError) or (named and problem):
        raise UserError(
            f"all processes of this run must be started within {JOIN_SECONDS:.0f} s, by the same command "
            f"on every host. Received: {who} alone, or not all of them ({problem}); {PROCESSES}=1 in "
            "the environment trains alone",
            exit_code=LOST,
        )
    if not is_first():
        console.silence()


def _connect(named: Mapping[str, Any]) -> Exception | None:
    """Have JAX connect the named processes, or those that it finds; returns what went wrong.

    In a thread, because Ctrl-C would not end JAX's waiting; and after twice our time JAX aborts the process.
    """
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
    limits = {
        "initialization_timeout": 2 * int(JOIN_SECONDS),
        "heartbeat_timeout_seconds": SILENT_SECONDS,
        "shutdown_timeout_seconds": SILENT_SECONDS // 2,
    }
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def initialize() -> None:
        try:
            jax.distributed.initialize(**named, **limits)
            outcome.put(None)
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=initialize, daemon=True).start()
    try:
        return outcome.get(timeout=JOIN_SECONDS)
    except queue.Empty:
        return TimeoutError("time is up")


def _named_processes() -> dict[str, Any]:
    """Arguments of `jax.distributed.initialize` as Keras's variables say; none for one process."""
    addresses, processes, process = (os.environ.get(n, "") for n in (ADDRESSES, PROCESSES, PROCESS))
    if processes in ("", "1") and process in ("", "0"):
        return {}
    address = addresses.split(",")[0]
    try:
        port, count, index = int(address.rpartition(":")[2]), int(processes), int(process)
        if not (0 < port < 2**16 and 0 <= index < count):
            raise ValueError
    except ValueError:
        raise UserError(
            f"{ADDRESSES} must be host:port of process 0, {PROCESSES} the number of processes, and "
            f"{PROCESS} one of 0, 1, 2, ... for each. Received: {addresses or 'nothing'}, "
            f"{processes or 'nothing'} and {process or 'nothing'}"
        ) from None
    named = {"coordinator_address": address, "coordinator_bind_address": address}
    return {**named, "num_processes": count, "process_id": index}


def count() -> int:
    return _place()[1]


def is_first() -> bool:
    """Whether this is process 0, which reads, writes and prints for all."""
    return _place()[0] == 0


def _place() -> tuple[int, int]:
    if keras.backend.backend() != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def agree(value: int) -> int:
    """The largest of the processes' values (int32). All of them must call it at the same update."""
    if count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def broadcast(value: Any) -> Any:
    """Process 0's value, on all processes. It is pickled, as the processes trust each other."""
    if count() == 1:
        return value
    from jax.experimental import multihost_utils

    packed = np.frombuffer(pickle.dumps(value) if is_first() else b"", np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(packed))))
    if not is_first():
        packed = np.zeros(size, np.uint8)
    return pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(packed)).tobytes())


def on_first(act: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on process 0 alone; all processes get its result, or its UserError."""
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
            + ("; ".join(different) or "other settings on another process, which names them")
        )
