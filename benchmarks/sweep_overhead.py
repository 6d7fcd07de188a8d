"""What does a sweep cost beside the same trainings started by hand, as many at once?

    pip install -r requirements-sweep.txt
    python -m benchmarks.sweep_overhead               about 10 minutes on 2 cores
    python -m benchmarks.sweep_overhead --quick       about 2 minutes

Short runs of ResNet-8 on synthetic images; each is a `train` process with one thread. A round is both ways,
one after the other. Their times are from the first run's config.json to the last run's results.json: the
start and the end of Ray are not in them. Writes sweep-overhead.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import timing

FLAGS = ["--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=32"]
FLAGS += ["--precision=float32", "--name=run"]
ENVIRONMENT = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = timing.argument_parser(__doc__, rounds=3, seconds=1.0)
    add = parser.add_argument
    add("--runs", type=int, default=6, help="of a round, each way (default: %(default)s)")
    add("--at-once", type=int, default=2, help="runs at once (default: %(default)s)")
    add("--steps", type=int, default=100, help="updates of a run (default: %(default)s)")
    arguments = timing.parse(parser, argv)
    if arguments.quick:
        arguments.rounds, arguments.runs, arguments.steps = 1, 2, 8
    ways = {"sweep": by_sweep, "hand": by_hand}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for k in range(arguments.rounds):
        for way in list(ways)[:: -1 if k % 2 else 1]:
            with tempfile.TemporaryDirectory() as folder:
                flags = [*FLAGS, f"--steps={arguments.steps}", f"--output-dir={folder}"]
                ways[way](flags, arguments)
                seconds[way].append(seconds_between_files(Path(folder), arguments.runs))
            print(f"round {k}: {way} {seconds[way][-1]:.1f} s", flush=True)
    result = timing.facts(arguments) | {
        "seconds": {way: timing.summary(values) for way, values in seconds.items()},
        "ratio": timing.ratio(seconds["sweep"], seconds["hand"]),
    }
    result["settings"] = {key: getattr(arguments, key) for key in ("runs", "at_once", "steps")}
    timing.write(result, arguments.output / "sweep-overhead.json")
    print(f"a sweep takes {timing.text_of(result['ratio'])} times as long as by hand")
    return 0


def seconds_between_files(folder: Path, runs: int) -> float:
    """Seconds from the first config.json to the last results.json of an experiment's folder."""
    begun = [file.stat().st_mtime for file in folder.glob("run/seed-*/config.json")]
    ended = [file.stat().st_mtime for file in folder.glob("run/seed-*/results.json")]
    if len(ended) != runs:
        raise SystemExit(f"error: {len(ended)} of {runs} runs have ended")
    return max(ended) - min(begun)


def by_hand(flags: list[str], arguments: argparse.Namespace) -> None:
    """Start the `train` processes one by one, some at once."""

    def train(seed: int) -> None:
        run("train", *flags, f"--seed={seed}")

    with ThreadPoolExecutor(arguments.at_once) as pool:
        list(pool.map(train, range(arguments.runs)))


def by_sweep(flags: list[str], arguments: argparse.Namespace) -> None:
    """Start one sweep."""
    cpus = max(1, (os.cpu_count() or 1) // arguments.at_once)
    run("sweep", *flags, f"--runs={arguments.runs}", f"--cpus-per-run={cpus}")


def run(*command: str) -> None:
    """Run a command of the package, and wait for its end."""
    subprocess.run(
        [sys.executable, "-m", "keras_resnet", *command],
        cwd=timing.ROOT,
        env=ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    sys.exit(main())
