"""Whatever happens to a sweep, its runs end with the bits of undisturbed ones, and no process is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_resnet.report import rows
from keras_resnet.runs import files
from keras_resnet.runs.folder import RunFolder

HERE = Path(__file__).parent
STEPS = 40
FLAGS = [
    "--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=8", "--name=run",
    "--precision=float32", f"--steps={STEPS}", "--checkpoint-every=7", "--eval-every=10",
]  # fmt: skip
LEFT_SECONDS = 15  # after which nothing of a sweep may be left

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs requirements-sweep.txt"),
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked for in /proc"),
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seeds that nothing disturbed, trained by `train` one after the other.

    With one thread, as a run that has one CPU: the number of threads decides the order of additions.
    """
    output = tmp_path_factory.mktemp("reference")
    command = [sys.executable, HERE / "small_child.py", "train", *FLAGS, "--runs=8"]
    with subprocess.Popen(
        [*map(str, command), f"--output-dir={output}"],
        stdin=subprocess.PIPE,  # it trains for as long as this is open
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1"},
    ) as process:
        assert process.wait(timeout=300) == 0
    return output


class Cluster:
    """A Ray cluster in a process of its own, as cluster_nodes.py makes it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, HERE / "cluster_nodes.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        made = json.loads(self.process.stdout.readline())
        self.address, self.raylets = made["address"], set(made["raylets"])

    def remove(self, raylet: int) -> None:
        """Kill a node: its raylet and its workers."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"remove {raylet}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "removed\n"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        yield made
    finally:
        made.process.communicate(timeout=60)


class Sweep:
    """A sweep that runs in a process of its own."""

    def __init__(self, output: Path, *flags: str, **environment: str):
        self.output, self.trace = output, output / "trace"
        self.printed = output / f"printed-{len(list(output.glob('printed-*')))}"
        with open(self.printed, "wb") as printed:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    HERE / "sweep_driver.py",
                    *FLAGS,
                    f"--output-dir={output}",
                    *flags,
                ],
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the cluster is on loopback too
                    "TF_SWEEP_TRACE": str(self.trace),
                    **environment,
                },
            )

    def updates(self) -> list[tuple[str, int, int, float]]:
        """Seed, process, update, time of every update so far."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        words = [line.split() for line in lines]
        return [(seed, int(pid), int(step), float(when)) for seed, pid, step, when in words]

    def wait_for(self, what: Callable[[], Any], seconds: float = 120) -> Any:
        """Wait until something is so, while the sweep goes on."""
        limit = time.monotonic() + seconds
        while not (found := what()):
            assert self.process.poll() is None, self.printed.read_text()
            assert time.monotonic() < limit, self.printed.read_text()
            time.sleep(0.05)
        return found

    def end(self, seconds: float = 300) -> tuple[int, str]:
        """Its exit code and what it printed; no training may be left then."""
        code = self.process.wait(seconds)
        self.assert_nothing_is_left()
        return code, self.printed.read_text()

    def assert_nothing_is_left(self) -> None:
        limit = time.monotonic() + LEFT_SECONDS
        while left := self.trainings():
            assert time.monotonic() < limit, left
            time.sleep(0.1)

    def trainings(self) -> list[int]:
        """Processes that train in this sweep's folder, whoever began them."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if f"--output-dir={self.output}".encode() in words and b"train" in words:
                found.append(int(path.parent.name))
        return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def assert_never_doubled(sweep: Sweep) -> None:
    """Each seed's processes came one after the other."""
    spans: dict[str, dict[int, list[float]]] = {}
    for seed, pid, _, when in sweep.updates():
        spans.setdefault(seed, {}).setdefault(pid, []).append(when)
    for times in spans.values():
        ordered = sorted((min(when), max(when)) for when in times.values())
        for (_, before), (after, _) in zip(ordered, ordered[1:], strict=False):
            assert before <= after
    for log in (sweep.output / "run").glob("*.log"):
        assert files.BUSY not in log.read_text()


def state(output: Path, seed: int) -> tuple[list, dict, list[np.ndarray]]:
    """What must be the same: metrics without rates, results without times, the final weights."""
    folder = RunFolder(output / "run" / f"seed-{seed}")
    metrics = [{**row, "images_per_second": None} for row in folder.read_metrics()]
    results = dict(folder.read_results() or {})
    for key in ("seconds", "images_per_second", "peak_memory_mib"):
        results.pop(key)
    return metrics, results, keras.models.load_model(folder.model_path).get_weights()


def assert_same(output: Path, reference: Path, seed: int) -> None:
    metrics, results, weights = state(output, seed)
    metrics0, results0, weights0 = state(reference, seed)
    assert metrics == metrics0 and [row["step"] for row in metrics] == [10, 20, 30, 40]
    assert results == results0
    assert all(np.array_equal(a, b) for a, b in zip(weights, weights0, strict=True))


def test_a_lost_node_and_a_killed_worker_change_no_bit(
    cluster: Cluster, reference: Path, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path, "--runs=8", f"--address={cluster.address}", TF_SWEEP_PAUSE="0.1")

    def in_mid_run() -> dict[int, int]:
        """Raylet -> a worker of its whose training has made 10 updates, once both have one."""
        found = {}
        for _, pid, step, _ in sweep.updates():
            if 10 <= step < 20 and pid in sweep.trainings():
                found[parent(parent(pid))] = parent(pid)
        return found if set(found) == cluster.raylets else {}

    (lost, _), (_, worker) = sweep.wait_for(in_mid_run).items()
    os.kill(worker, signal.SIGKILL)
    cluster.remove(lost)
    code, printed = sweep.end()
    assert code == 0, printed
    assert printed.count("its worker was lost") >= 3, printed  # one, and the two of the node
    assert "from update 14" in printed or "from update 7" in printed
    assert_never_doubled(sweep)
    for seed in range(8):
        assert_same(tmp_path, reference, seed)
    (row,) = rows.group([rows.read(path) for path in rows.find([tmp_path])])[0]
    assert [run.config.seed for run in row.finished] == list(range(8))
    mean = f"{row.mean('test_error'):.2f} ± {row.std:.2f}"
    assert (
        mean in printed
        and f'"test_error_mean": {round(row.mean("test_error"), 4)}'
        in (tmp_path / "run/summary.json").read_text()
    )
