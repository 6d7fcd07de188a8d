"""Several processes that train one run together, on one host or many (JAX).

Each is given the same command and Keras's variables: KERAS_DISTRIBUTION_JOB_ADDRESSES (of process 0 at
least, host:port), KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID. All run the same
code with the same numbers, so that they take the same branches. Process 0 alone has the run folder; the
others work on a copy of it that is thrown away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.training.config import TrainConfig

PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
HEARTBEAT_SECONDS = 30  # a host that is silent for so long is lost
# Updates between two looks at whether a signal came to any of the processes.
AGREE_EVERY = 10
_FILES = ("config.json", "results.json", "metrics.csv", "checkpoints/*.npz")


def are_many() -> bool:
    """Whether this process is told to train together with others."""
    return os.environ.get(PROCESSES, "1") != "1"


def join() -> None:
    """Wait for the other processes of this run. Call it before anything is computed.

    Raises:
        UserError: where the backend is not JAX, or the others do not come.
    """
    if not are_many():
        return
    import keras

    if keras.backend.backend() != "jax":
        raise UserError(
            f"several processes train together on JAX only. Received: {PROCESSES}="
            f"{os.environ[PROCESSES]} and Keras's backend {keras.backend.backend()}; set "
            "KERAS_BACKEND=jax"
        )
    import jax

    if jax.distributed.is_initialized():
        return
    addresses = os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES", "")
    try:
        # As `keras.distribution.initialize` does, which waits for 100 s for a host that is lost.
        jax.distributed.initialize(
            addresses.split(",")[0] or None,
            int(os.environ[PROCESSES]),
            int(os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "")),
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            "each process needs KERAS_DISTRIBUTION_JOB_ADDRESSES (host:port of process 0), "
            f"{PROCESSES} and KERAS_DISTRIBUTION_PROCESS_ID (from 0 on), and the others must run. "
            f"Received: {error}"
        ) from None
    if index() > 0:
        console.silence()


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
    settings = {**config.settings(), "output_dir": None, "data_dir": None}
    _check_same(repr(sorted(settings.items())))
    packed = _packed(config, experiment, fresh) if index() == 0 else b""
    packed = _broadcast(packed)
    if index() == 0:
        yield config
        return
    with tempfile.TemporaryDirectory() as folder:
        own = dataclasses.replace(config, output_dir=folder)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(Path(folder) / own.experiment, filter="data")
        yield own


def _check_same(text: str) -> None:
    """Raise UserError, on all processes, where one has another text than process 0."""
    from jax.experimental import multihost_utils

    digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:4], np.int32)
    digests = multihost_utils.process_allgather(digest)
    different = [k for k, other in enumerate(digests) if other[0] != digests[0][0]]
    if different:
        raise UserError(
            f"all processes must be given the same flags. Received: other ones by process {different[0]}"
        )


def _packed(config: TrainConfig, experiment: Path, fresh: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for seed in range(config.seed, config.seed + config.runs):
            folder = experiment / f"seed-{seed}"
            for path in [] if fresh else [p for name in _FILES for p in folder.glob(name)]:
                if path.is_file():
                    archive.add(path, path.relative_to(experiment), recursive=False)
    return buffer.getvalue()


def _broadcast(data: bytes) -> bytes:
    """The bytes of process 0, on all."""
    from jax.experimental import multihost_utils

    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    mine = np.zeros(size, np.uint8)
    mine[: len(data)] = np.frombuffer(data, np.uint8)
    return multihost_utils.broadcast_one_to_all(mine).astype(np.uint8).tobytes()
