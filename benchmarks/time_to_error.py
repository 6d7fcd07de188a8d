"""How soon is the paper's error reached: recipe `fast` against the paper's 64,000 updates in eager PyTorch?

    python -m benchmarks.time_to_error --data-dir ...      about 20 minutes on 2 cores
    python -m benchmarks.time_to_error --quick             about a minute

Runs `python train.py --recipe fast --depth 20` once, whole. Every `--every` seconds the run is halted
(SIGSTOP) for a turn of the eager float32 PyTorch loop, so that both meet the same machine; the halts are
not counted.

    ratio = (64,000 x 128 / images per second of PyTorch) / (seconds of `fast`, start to results.json)

Writes time-to-error.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.timing import Worker
from keras_resnet.recipes import PAPER

DEPTH = 20
PAPER_ERROR = 8.75  # percent, He et al. 2015, table 6
IMAGES = PAPER.steps * PAPER.batch_size


def main(argv: Sequence[str] | None = None) -> int:
    parser = timing.argument_parser(__doc__, rounds=1, seconds=6)
    parser.add_argument("--seed", type=int, default=0, help="of the run (default: %(default)s)")
    parser.add_argument("--every", type=float, default=120, help="seconds (default: %(default)s)")
    arguments = timing.parse(parser, argv)
    data = arguments.data
    if not data["data_dir"] and not arguments.quick:
        parser.error("the paper's error is CIFAR-10's: name its folder by --data-dir")
    command = ["train.py", "--recipe", "fast", "--depth", str(DEPTH), "--seed", str(arguments.seed)]
    if arguments.quick:
        arguments.every = 8
        command += ["--steps", "100"]
    result = timing.facts(arguments) | {"command": " ".join(["python", *command])}
    del result["settings"]["rounds"]
    with tempfile.TemporaryDirectory() as folder:
        command += ["--output-dir", folder, "--name", "run", "--dataset", str(data["dataset"])]
        command += ["--data-dir", data["data_dir"]] if data["data_dir"] else []
        spec = {"contender": "torch_training", "precision": "float32", "depth": DEPTH, **data}
        spec |= {"batch_size": PAPER.batch_size, "python": arguments.torch_python}
        with Worker(spec) as torch:
            torch.wait_until_warm()
            seconds, rates, others = train(command, torch, arguments.every, arguments.seconds)
        results = json.loads((Path(folder) / f"run/seed-{arguments.seed}/results.json").read_text())
    images_per_second = [PAPER.batch_size * rate for rate in rates]
    result |= {
        "versions": results["versions"] | torch.facts["versions"],
        "fast": {"seconds": round(seconds, 1)}
        | {key: results[key] for key in ("steps", "test_error", "precision", "seed")},
        "torch_images_per_second": timing.summary(images_per_second),
        "ratio": timing.summary([IMAGES / rate / seconds for rate in images_per_second]),
        "cpu_of_others_percent": others,
    }
    timing.write(result, arguments.output / "time-to-error.json")
    print(text(result))
    return 0


def train(
    command: Sequence[str], torch: Worker, every: float, turn: float
) -> tuple[float, list[float], float]:
    """Run a Python command from its start to its end, halted for PyTorch's turns.

    Returns:
        Its seconds without the halts; PyTorch's updates per second in each turn; and the percentage of the
        CPU time that other processes took.
    """
    rates: list[float] = []
    halted = 0.0
    begun, before = time.perf_counter(), timing.cpu_seconds_of_others([torch])
    # A session of its own, so that processes that it starts are halted with it.
    process = subprocess.Popen([sys.executable, *command], cwd=timing.ROOT, start_new_session=True)
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(every)
                break
            halt = time.perf_counter()
            os.killpg(process.pid, signal.SIGSTOP)
            rates.append(torch.rate(turn))
            os.killpg(process.pid, signal.SIGCONT)
            halted += time.perf_counter() - halt
        seconds = time.perf_counter() - begun
    finally:
        process.kill()
        process.wait()
    if process.returncode or not rates:
        raise SystemExit(
            f"error: train.py ended with code {process.returncode} after {len(rates)} turns of PyTorch"
        )
    times = os.times()  # train.py is this process's child, and now ended
    others = timing.cpu_seconds_of_others([torch]) - before
    others -= times.children_user + times.children_system
    return seconds - halted, rates, timing.percent_of_cpu(others, seconds)


def text(result: dict[str, Any]) -> str:
    """The result in four lines."""
    fast, ratio = result["fast"], result["ratio"]
    rate = result["torch_images_per_second"]["median"]
    reached = "reached" if fast["test_error"] <= PAPER_ERROR else "not reached"
    return (
        f"{result['command']}: {fast['steps']:,} updates, {fast['seconds'] / 60:.1f} minutes from start "
        f"to results.json, test error {fast['test_error']:.2f} % (the paper's {PAPER_ERROR} % is {reached})\n"
        f"eager PyTorch in float32: {rate:.0f} images/s, 64,000 updates in {IMAGES / rate / 3600:.2f} hours\n"
        f"ratio: {timing.text_of(ratio, 1)} over {len(ratio['rounds'])} turns\n"
        f"other processes took {result['cpu_of_others_percent']} % of the CPU time"
    )


if __name__ == "__main__":
    sys.exit(main())
