"""How soon is the paper's error reached: recipe `fast` against the paper's 64,000 updates in eager PyTorch?

    python -m benchmarks.time_to_error --data-dir ...      about 20 minutes on 2 cores

Runs `python train.py --recipe fast --depth 20` once, whole. Every `--every` seconds the run is halted
(SIGSTOP) for a turn of the eager float32 PyTorch loop, so that both meet the same machine; the halts are
not counted.

    ratio = (64,000 x 128 / images per second of PyTorch) / (seconds of `fast`, start to results.json)

Writes time-to-error.json.
"""

import argparse
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

from benchmarks import timing
from keras_resnet.recipes import PAPER

PAPER_ERROR = 8.75  # percent, ResNet-20, He et al. 2015, table 6
IMAGES = PAPER.steps * PAPER.batch_size


def main(argv: Sequence[str] | None = None) -> None:
    parser = timing.argument_parser(__doc__, rounds=1, seconds=6)
    parser.add_argument("--seed", type=int, default=0, help="of the run (default: %(default)s)")
    parser.add_argument("--every", type=float, default=120, help="seconds (default: %(default)s)")
    arguments = timing.parse(parser, argv)
    if arguments.quick:
        arguments.every = 8
    elif not arguments.data_dir:
        parser.error("the paper's error is CIFAR-10's: name its folder by --data-dir")
    command = ["train.py", "--recipe=fast", "--depth=20", f"--seed={arguments.seed}"]
    command += ["--steps=100"] if arguments.quick else []
    spec = {"contender": "torch_training", "backend": "torch", "precision": "float32", "depth": 20}
    spec |= {**arguments.data, "batch_size": 128, "python": arguments.torch_python}
    with tempfile.TemporaryDirectory() as folder, timing.Worker(spec) as torch:
        torch.wait_until_warm()
        command += [f"--output-dir={folder}", "--name=run", f"--dataset={spec['dataset']}"]
        command += [f"--data-dir={arguments.data_dir}"] if arguments.data_dir else []
        seconds, rates = train(command, torch, arguments)
        results = json.loads((Path(folder) / f"run/seed-{arguments.seed}/results.json").read_text())
    result = {
        "versions": results["versions"] | torch.facts["versions"],
        "fast": {"seconds": round(seconds, 1)}
        | {key: results[key] for key in ("steps", "test_error", "precision", "seed")},
        "torch_images_per_second": timing.summary([128 * rate for rate in rates]),
        "ratio": timing.summary([IMAGES / (128 * rate) / seconds for rate in rates]),
    }
    timing.write(result, "time-to-error", arguments)
    speed, error = result["torch_images_per_second"]["median"], results["test_error"]
    print(
        f"fast: {seconds / 60:.1f} minutes, test error {error:.2f} % (the paper's: {PAPER_ERROR} %); "
        f"eager PyTorch: {IMAGES / speed / 60:.0f} minutes; ratio {timing.text_of(result['ratio'], 1)}"
    )


def train(
    command: Sequence[str], torch: timing.Worker, arguments: argparse.Namespace
) -> tuple[float, list[float]]:
    """Run a Python command from its start to its end, halted for PyTorch's turns.

    Returns:
        Its seconds without the halts, and PyTorch's updates per second in each turn.
    """
    rates: list[float] = []
    begun, halted = time.perf_counter(), 0.0
    # A session of its own, so that processes that it starts are halted with it.
    process = subprocess.Popen([sys.executable, *command], cwd=timing.ROOT, start_new_session=True)
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(arguments.every)
                break
            halt = time.perf_counter()
            os.killpg(process.pid, signal.SIGSTOP)
            rates.append(torch.rate(arguments.seconds))
            os.killpg(process.pid, signal.SIGCONT)
            halted += time.perf_counter() - halt
        seconds = time.perf_counter() - begun - halted
    finally:
        process.kill()
        process.wait()
    if process.returncode or not rates:
        raise SystemExit(f"error: train.py ended with {process.returncode}, {len(rates)} turns")
    return seconds, rates


if __name__ == "__main__":
    main()
