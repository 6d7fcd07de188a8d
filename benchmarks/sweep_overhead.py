"""What a sweep costs beside the same trainings started by hand, as many at once.

    pip install -r requirements-sweep.txt
    python benchmarks/sweep_overhead.py      about 10 minutes on 2 cores

Short runs of a small net on drawn data; each is a `train` process with one thread. A round is both ways, in
turns; which is first changes from round to round. Ray's start and end and the look at the nodes are not in
a sweep's time, which is from its plan to its last result; they are printed. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=32",
         "--precision=float32", "--name=run"]  # fmt: skip
ENVIRONMENT = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="(default: %(default)s)")
    add("--runs", type=int, default=6, help="of a round, each way (default: %(default)s)")
    add("--at-once", type=int, default=2, help="runs at once (default: %(default)s)")
    add("--steps", type=int, default=100, help="updates of a run (default: %(default)s)")
    arguments = parser.parse_args(argv)
    flags = [*FLAGS, f"--steps={arguments.steps}"]
    ways = {"hand": by_hand, "sweep": by_sweep}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for k in range(arguments.rounds):
        for way in list(ways)[:: 1 if k % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory() as output:
                taken = ways[way]([*flags, f"--output-dir={output}"], arguments)
                finished = list(Path(output).glob("run/seed-*/results.json"))
                assert len(finished) == arguments.runs
            seconds[way].append(round(taken, 2))
            print(f"round {k}: {way} {taken:.1f} s; load {os.getloadavg()[0]:.1f}", flush=True)
    ratios = [s / h for s, h in zip(seconds["sweep"], seconds["hand"], strict=True)]
    print(json.dumps({**seconds, "ratios": ratios, "median": statistics.median(ratios)}))
    return 0


def by_hand(flags: list[str], arguments: argparse.Namespace) -> float:
    """Seconds of `train` processes started one by one, some at once."""

    def train(seed: int) -> None:
        command = [sys.executable, "-m", "keras_resnet", "train", *flags, f"--seed={seed}"]
        subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)

    start = time.monotonic()
    with ThreadPoolExecutor(arguments.at_once) as pool:
        list(pool.map(train, range(arguments.runs)))
    return time.monotonic() - start


def by_sweep(flags: list[str], arguments: argparse.Namespace) -> float:
    """Seconds of a sweep, from its plan to its last result."""
    cpus = (os.cpu_count() or 1) // arguments.at_once
    command = [sys.executable, "-m", "keras_resnet", "sweep", *flags, f"--runs={arguments.runs}",
               f"--cpus-per-run={max(1, cpus)}"]  # fmt: skip
    launched = time.monotonic()
    begun = ended = launched
    with subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if " at once: " in line:
                begun = time.monotonic()
            if ": finished: " in line:
                ended = time.monotonic()
    assert process.returncode == 0
    last = time.monotonic()
    print(f"  Ray's start {begun - launched:.1f} s, its end {last - ended:.1f} s", flush=True)
    return ended - begun


if __name__ == "__main__":
    sys.exit(main())
