"""Time to the paper's error: recipe `fast` against the paper's 64,000 updates in eager PyTorch, on this CPU.

    pip install -r requirements-torch.txt
    TFDS_DATA_DIR=... python benchmarks/time_to_error.py      about 30 minutes on 2 cores

`python train.py --recipe fast --depth 20` is run once, whole. Every few minutes it is halted (SIGSTOP)
for a turn of the eager float32 PyTorch loop, so both meet the same machine; the halts are taken off.

    ratio = (64,000 x 128 / images per second of PyTorch) / (seconds of `fast`, start to results.json)

Writes time-to-error.json. Let nothing else run meanwhile: what other processes took is in the file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measure, run  # noqa: E402
from benchmarks.measure import Worker  # noqa: E402
from keras_resnet.commands import flags, terminal  # noqa: E402
from keras_resnet.errors import UserError  # noqa: E402
from keras_resnet.recipes import PAPER  # noqa: E402
from keras_resnet.runs import files  # noqa: E402
from keras_resnet.runs.folder import RunFolder, RunResults  # noqa: E402

DEPTH = 20
NAME = "resnet20-fast"
PAPER_ERROR = 8.75  # percent, He et al. 2015, table 6


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seed", type=int, default=0, help="of the run (default: %(default)s)")
    add("--every", type=float, default=120, help="seconds between turns (default: %(default)s)")
    add("--seconds", type=float, default=6, help="of a PyTorch turn (default: %(default)s)")
    add("--steps", type=int, help="fewer updates: does it work? (default: the recipe's)")
    add("--data-dir", help="folder of tensorflow_datasets (default: $TFDS_DATA_DIR)")
    add("--runs-dir", type=Path, help="keeps the run folder there (default: a temporary folder)")
    add("--output", type=Path, default=measure.ROOT / "benchmarks", help="(default: benchmarks/)")
    arguments = parser.parse_args(argv)
    dataset, data_dir = run.find_data(arguments.data_dir)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        runs_dir = arguments.runs_dir or Path(folder) / "runs"
        prepare = {"folder": folder, "dataset": dataset, "data_dir": data_dir, "depths": []}
        try:
            with Worker({"contender": "prepare", **prepare}) as worker:
                result = run.facts_of_run(worker.ready())
            spec = {"contender": "torch_float32", "depth": DEPTH, "batch": PAPER.batch_size}
            torch = stack.enter_context(Worker({**spec, "folder": folder}))
            torch_facts = torch.ready()
            command = ["train.py", "--recipe", "fast", "--depth", str(DEPTH)]
            command += ["--seed", str(arguments.seed)]
            command += ["--steps", str(arguments.steps)] if arguments.steps else []
            print(f"python {' '.join(command)}", flush=True)
            command += ["--dataset", dataset, "--output-dir", str(runs_dir.resolve())]
            command += ["--data-dir", data_dir] if data_dir else []
            command += ["--name", NAME]
            found = _measure(command, torch, arguments.every, arguments.seconds)
        except measure.WorkerFailed as error:
            raise UserError(str(error), exit_code=1) from None
        results = RunFolder(runs_dir / NAME / f"seed-{arguments.seed}").read_results()
    assert results is not None  # train.py has ended well
    result["versions"] |= torch_facts["versions"]
    result |= _outcome(found, results)
    files.write_json(arguments.output / "time-to-error.json", result)
    print(_text(result))
    return 0


def _measure(command: Sequence[str], torch: Worker, every: float, seconds: float) -> dict[str, Any]:
    """Run a command of Python from its start to its end, halted for PyTorch's turns."""
    turns: list[float] = []
    halted = 0.0
    clock, stat = time.perf_counter(), measure.cpu_busy()
    own = torch.cpu_seconds()
    process = subprocess.Popen([sys.executable, *command], cwd=measure.ROOT)
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(every)
                break
            process.send_signal(signal.SIGSTOP)
            begun = time.perf_counter()
            turns.append(PAPER.batch_size * torch.rate(seconds))
            halted += time.perf_counter() - begun
            process.send_signal(signal.SIGCONT)
        wall = time.perf_counter() - clock
    finally:
        process.kill()
        process.wait()
    if process.returncode or not turns:
        raise measure.WorkerFailed(
            f"train.py ended with code {process.returncode} after {len(turns)} turns of PyTorch"
        )
    times = os.times()
    used = times.children_user + times.children_system + torch.cpu_seconds() - own
    others = 100 * (measure.cpu_busy() - stat - used) / (wall * (os.cpu_count() or 1))
    return {"seconds": wall - halted, "torch": turns, "others": round(max(0.0, others), 1)}


def _outcome(found: dict[str, Any], results: RunResults) -> dict[str, Any]:
    images = PAPER.steps * PAPER.batch_size
    return {
        "fast": {
            "seconds": round(found["seconds"], 1),
            "steps": results["steps"],
            "test_error": results["test_error"],
            "precision": results["precision"],
            "seed": results["seed"],
        },
        "torch_float32_images_per_second": measure.summary(found["torch"]),
        "ratio": measure.summary([images / rate / found["seconds"] for rate in found["torch"]], 3),
        "cpu_of_others_percent": found["others"],
    }


def _text(result: dict[str, Any]) -> str:
    fast, ratio = result["fast"], result["ratio"]
    torch = result["torch_float32_images_per_second"]["median"]
    hours = PAPER.steps * PAPER.batch_size / torch / 3600
    return (
        f"ResNet-{DEPTH}: recipe fast, {fast['steps']:,} updates, test error {fast['test_error']:.2f} % "
        f"(paper {PAPER_ERROR} %), {fast['seconds'] / 60:.1f} minutes from start to results\n"
        f"eager PyTorch float32, 64,000 updates at {torch:.0f} images/s: {hours:.2f} hours\n"
        f"time to the paper's error: {ratio['median']:.1f} times as fast "
        f"({ratio['min']:.1f}..{ratio['max']:.1f} over {len(ratio['rounds'])} turns; other processes "
        f"took {result['cpu_of_others_percent']} % of the CPU time)"
    )


if __name__ == "__main__":
    sys.exit(terminal.run(main))
