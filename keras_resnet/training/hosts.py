"""Several processes that train one run together, on one host or many (JAX).

Each is given the same command and Keras's variables: KERAS_DISTRIBUTION_JOB_ADDRESSES (of process 0 at
least, host:port), KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID. All run the same
code with the same numbers, so that they take the same branches. Process 0 alone has the run folders; the
others work on copies that are thrown away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import shutil
import signal
import socket
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from keras_resnet import console, interrupts
from keras_resnet.errors import UserError
from keras_resnet.runs import checkpoint as checkpoints
from keras_resnet.runs import provenance
from keras_resnet.runs.config import TrainConfig

ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
PROCESS = "KERAS_DISTRIBUTION_PROCESS_ID"
JOIN_SECONDS = 120  # how long a process waits for the others at the start
HEARTBEAT_SECONDS = 30  # a host that is silent for so long is lost
# Updates between two looks at whether a signal came to any of the processes.
AGREE_EVERY = 10
_FILES = ("config.json", "results.json", "metrics.csv")


@dataclasses.dataclass(frozen=True)
class Place:
    """This process among the processes of a run."""

    address: str  # host:port of process 0
    processes: int
    process: int  # from 0


def place() -> Place | None:
    """What Keras's variables say; None where this process trains alone.

    Raises:
        UserError: for a value that makes no sense; the variable is named.
    """
    found = (
        os.environ.get(ADDRESSES, ""),
        os.environ.get(PROCESSES, ""),
        os.environ.get(PROCESS, ""),
    )
    addresses, processes, process = found
    if processes in ("", "1"):
        if process not in ("", "0"):
            raise UserError(f"{PROCESS} is {process}, so {PROCESSES} must be 2 or more; set it")
        return None
    address = addresses.split(",")[0]
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(
            f"{ADDRESSES} must be host:port of process 0. Received: {addresses or 'nothing'}"
        )
    if not processes.isascii() or not processes.isdigit() or not 0 < int(processes) < 10_000:
        raise UserError(f"{PROCESSES} must be the number of processes. Received: {processes}")
    if not process.isascii() or not process.isdigit() or int(process) >= int(processes):
        raise UserError(
            f"{PROCESS} must be 0 to {int(processes) - 1}, another one for each process. "
            f"Received: {process or 'nothing'}"
        )
    return Place(address, int(processes), int(process))


def are_many() -> bool:
    """Whether this process is told to train together with others."""
    return place() is not None


def join() -> None:
    """Wait for the other processes of this run. Call it before anything is computed.

    Raises:
        UserError: where the backend is not JAX, or process 0 cannot be where it is said to be.
    """
    here = place()
    if here is None:
        return
    import keras

    if keras.backend.backend() != "jax":
        raise UserError(
            f"several processes train together on JAX only. Received: {PROCESSES}={here.processes} "
            f"and Keras's backend {keras.backend.backend()}; set KERAS_BACKEND=jax"
        )
    import jax

    if jax.distributed.is_initialized():
        return
    if here.process == 0:
        _check_port(here.address)
    console.print_line(f"process {here.process} waits for all {here.processes} at {here.address}")
    # It would take SIGTERM from us.
    jax.config.update("jax_enable_preemption_service", False)
    # In JAX's own code Python's handlers do not run.
    with interrupts.handled(signal.SIG_DFL):
        # As `keras.distribution.initialize` does, which waits for 100 s for a host that is lost.
        jax.distributed.initialize(
            here.address,
            here.processes,
            here.process,
            coordinator_bind_address=here.address,  # and not every interface of the host
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    if here.process > 0:
        console.silence()


def _check_port(address: str) -> None:
    """Raise UserError where process 0 cannot listen: JAX would crash without a word."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_server((host, int(port))):
            pass
    except OSError as error:
        raise UserError(
            f"{ADDRESSES} must begin with an address and a free port of this host, which is process 0. "
            f"Received: {address} ({error.strerror or error})"
        ) from None


def count() -> int:
    """How many processes train this run."""
    if not are_many():
        return 1
    import jax

    return jax.process_count()


def index() -> int:
    """Which of them this is, from 0; process 0 is the one that prints and writes."""
    if not are_many():
        return 0
    import jax

    return jax.process_index()


def agree(value: int) -> int:
    """The largest of the processes' values. All of them must call it at the same update."""
    if count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


@contextlib.contextmanager
def workplace(config: TrainConfig, experiment: Path, fresh: bool) -> Iterator[TrainConfig]:
    """The settings that this process trains with: others than process 0 get a copy of its run folders.

    Args:
        config: the settings of all processes.
        experiment: the folder of the run folders.
        fresh: leave out what is in them, because it will be moved aside.

    Raises:
        UserError: where the processes were given other settings.
    """
    if count() == 1:
        yield config
        return
    settings = {**config.settings(), "output_dir": None, "data_dir": None, "restart": fresh}
    from keras_resnet.training import devices  # with Keras, which `are_many` can do without

    settings |= {"versions": provenance.versions("jax"), "precision": devices.precision("auto")[0]}
    _check_same(repr(sorted(settings.items(), key=str)))
    seeds = range(config.seed, config.seed + config.runs)
    paths = [experiment / f"seed-{k}" / name for k in seeds for name in _FILES if not fresh]
    packed = _from_first(paths, experiment)
    if index() == 0:
        yield config
        return
    with tempfile.TemporaryDirectory() as folder:
        own = dataclasses.replace(config, output_dir=folder)
        _unpack(packed, Path(folder) / own.experiment)
        yield own


def renew_copy(folder: Path) -> None:
    """Make the other processes' copies of a run folder what process 0's is now, checkpoints included.

    Call it with the lock held: until then another command may have trained there.
    """
    if count() == 1:
        return
    names = [folder / name for name in _FILES]
    packed = _from_first([*names, *checkpoints.list_checkpoints(folder)], folder)
    if index() > 0:
        shutil.rmtree(folder)  # with its lock, of which no other process knows
        folder.mkdir()
        _unpack(packed, folder)


def _check_same(text: str) -> None:
    """Raise UserError, on all processes, where one has another text than process 0."""
    from jax.experimental import multihost_utils

    digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:4], np.int32)
    digests = multihost_utils.process_allgather(digest)
    different = [k for k, other in enumerate(digests) if other[0] != digests[0][0]]
    if different:
        raise UserError(
            "all processes must have the same flags, versions and kind of device. Received: other ones "
            f"by process {different[0]}"
        )


def _from_first(paths: Iterable[Path], folder: Path) -> bytes:
    """Those of the files that process 0 has, packed with their names in a folder."""
    buffer = io.BytesIO()
    if index() == 0:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path in paths:
                if path.is_file():
                    archive.add(path, path.relative_to(folder), recursive=False)
    return _broadcast(buffer.getvalue())


def _unpack(packed: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def _broadcast(data: bytes) -> bytes:
    """The bytes of process 0, on all."""
    from jax.experimental import multihost_utils

    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    mine = np.zeros(size, np.uint8)
    mine[: len(data)] = np.frombuffer(data, np.uint8)
    return multihost_utils.broadcast_one_to_all(mine).astype(np.uint8).tobytes()
