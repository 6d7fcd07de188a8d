"""The parent's side of a measurement: worker processes, interleaved rounds, statistics.

Every contender is a process of its own, because the thread pools of TensorFlow, PyTorch and ONNX
Runtime disturb each other in one. All are started and warmed up first; then they take turns, one at
a time, while the others block on a pipe. What slows the machine down for a while so hits all.

Nothing here imports TensorFlow or PyTorch.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_KILL_AFTER = 10.0  # seconds a worker has to go after its pipe was closed


class WorkerFailed(Exception):
    """A worker process ended, or answered with something else than was asked for."""


class Worker:
    """One contender in one process; see `worker.py` for what `spec` may hold.

    Use it as a context manager: leaving it ends the process.
    """

    def __init__(self, spec: Mapping[str, Any]):
        self.spec = dict(spec)
        self.facts: dict[str, Any] = {}
        self.name = "-".join(str(spec[k]) for k in ("contender", "depth", "batch") if k in spec)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by __exit__
        # Only CPUs are compared: a GPU would be seen by one framework and not by another.
        backend = self.spec.get("backend", "tensorflow")
        hidden = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": backend}
        onednn = {
            "TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1")
        }  # as train.py
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(self.spec)],
            cwd=self.spec.get("checkout", ROOT),
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **hidden, **onednn},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(_KILL_AFTER)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def ready(self) -> dict[str, Any]:
        """Wait until the contender is warm; its facts (what it says of itself)."""
        return self._answer()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer is missing too, and says why
        return self._answer()

    def rate(self, seconds: float) -> float:
        """Updates (or batches) per second over one turn of at least `seconds`."""
        answer = self.ask("turn", seconds=seconds)
        return answer["updates"] / answer["seconds"]

    def peak_memory(self) -> int:
        """Peak resident memory of the process so far, in MiB."""
        return self.ask("memory")["mib"]

    def cpu_seconds(self) -> float:
        """CPU time of the process so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = (self._log.read().strip().splitlines() or ["it printed nothing"])[-1]
            raise WorkerFailed(f"the worker {self.name} ended with code {code}: {last[:300]}")
        return json.loads(line)


def interleave(
    workers: Mapping[str, Worker], rounds: int, seconds: float
) -> tuple[dict[str, list[float]], float]:
    """Let all workers take turns; every second round runs in reverse order, so that drift cancels.

    A turn lasts `seconds` at least, times `share` where the worker's spec has one.

    Returns:
        For each worker the updates per second of each round; and the percentage of the machine's CPU
        time that went to other processes meanwhile: above a few percent, measure again.
    """
    start, others = time.perf_counter(), _cpu_of_others(workers)
    rates: dict[str, list[float]] = {name: [] for name in workers}
    for k in range(rounds):
        names = list(workers)[:: -1 if k % 2 else 1]
        for name in names:
            share = workers[name].spec.get("share", 1.0)
            rates[name].append(workers[name].rate(share * seconds))
    available = (time.perf_counter() - start) * (os.cpu_count() or 1)
    taken = _cpu_of_others(workers) - others
    return rates, round(max(0.0, 100 * taken / available), 1)


def _cpu_of_others(workers: Mapping[str, Worker]) -> float:
    """CPU seconds since the start of the machine that were not the workers'."""
    return cpu_busy() - sum(worker.cpu_seconds() for worker in workers.values())


def cpu_busy() -> float:
    """CPU seconds of all processes since the start of the machine."""
    fields = [int(f) for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def summary(values: Sequence[float], digits: int = 5) -> dict[str, Any]:
    """Median, smallest and largest of one number per round, and all of them."""
    values = [float(f"{value:.{digits}g}") for value in values]
    return {
        "median": float(f"{statistics.median(values):.{digits}g}"),
        "min": min(values),
        "max": max(values),
        "rounds": values,
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """How many times faster `ours` is: the medians' ratio, and each round's with its spread.

    `standard_error` is that of the rounds' mean: whether two contenders can be told apart.
    """
    of_medians = statistics.median(ours) / statistics.median(theirs)
    rounds = [a / b for a, b in zip(ours, theirs, strict=True)]
    found = {"of_medians": of_medians, "mean": statistics.fmean(rounds)}
    if len(rounds) > 1:
        found["standard_error"] = statistics.stdev(rounds) / len(rounds) ** 0.5
    return {**{k: float(f"{v:.4g}") for k, v in found.items()}, **summary(rounds, 4)}


def line_fit(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Least squares of y = intercept + slope x, weighted by 1/y^2, and the largest error of it.

    `largest_error` is relative to y, so that a point far out does not hide the others.
    """
    w = [1 / value**2 for value in y]
    total = sum(w)
    mean_x = sum(a * b for a, b in zip(w, x, strict=True)) / total
    mean_y = sum(a * b for a, b in zip(w, y, strict=True)) / total
    spread = sum(c * (a - mean_x) ** 2 for a, c in zip(x, w, strict=True))
    slope = sum(c * (a - mean_x) * (b - mean_y) for a, b, c in zip(x, y, w, strict=True)) / spread
    intercept = mean_y - slope * mean_x
    errors = [abs(intercept + slope * a - b) / b for a, b in zip(x, y, strict=True)]
    return {"intercept": intercept, "slope": slope, "largest_error": max(errors)}


def training_flops(multiply_adds: int) -> int:
    """Floating point operations of training on one image.

    Two for a multiply-add; the gradients of the activations and of the weights cost as much as the
    forward pass each.
    """
    return 2 * 3 * multiply_adds


def memory_available() -> int:
    """Memory that can be used without swapping, in MiB."""
    return _kib("/proc/meminfo", "MemAvailable") // 1024


def memory_peak() -> int:
    """Peak resident memory of this process, in MiB.

    Not `getrusage`: its maximum is that of the parent where a child was forked from a larger one.
    """
    return _kib("/proc/self/status", "VmHWM") // 1024


def _kib(path: str, key: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise KeyError(key)
