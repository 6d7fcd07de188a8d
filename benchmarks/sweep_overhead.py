"""What does a sweep cost beside the same trainings started by hand, as many at once?

    pip install -e '.[sweep]'
    python -m benchmarks.sweep_overhead               about 10 minutes on 2 cores

Six short runs of ResNet-8 on synthetic images, two at once, each a `train` process with one thread. A round
is both ways, one after the other. Their times are from the first run's config.json to the last run's
results.json: the start and the end of Ray are not in them. Writes sweep-overhead.json.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import timing

AT_ONCE = 2
FLAGS = ["--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=32"]
FLAGS += ["--precision=float32", "--name=run"]


def main(argv: Sequence[str] | None = None) -> None:
    arguments = timing.parse(timing.argument_parser(__doc__, rounds=3, seconds=1.0), argv)
    runs, steps = (2, 8) if arguments.quick else (6, 100)
    seconds: dict[str, list[float]] = {"sweep": [], "hand": []}
    for k in range(arguments.rounds):
        for way in list(seconds)[:: -1 if k % 2 else 1]:
            with tempfile.TemporaryDirectory() as folder:
                flags = [*FLAGS, f"--steps={steps}", f"--output-dir={folder}"]
                commands = [["train", *flags, f"--seed={seed}"] for seed in range(runs)]
                if way == "sweep":
                    cpus = max(1, (os.cpu_count() or 1) // AT_ONCE)
                    commands = [["sweep", *flags, f"--runs={runs}", f"--cpus-per-run={cpus}"]]
                with ThreadPoolExecutor(AT_ONCE) as pool:
                    list(pool.map(run, commands))
                seconds[way].append(seconds_between_files(Path(folder) / "run"))
            print(f"round {k}: {way} {seconds[way][-1]:.1f} s", flush=True)
    result = {
        "seconds": {way: timing.summary(values) for way, values in seconds.items()},
        "ratio": timing.ratio(seconds["sweep"], seconds["hand"]),
    }
    timing.write(result, "sweep-overhead", arguments)
    print(f"a sweep takes {timing.text_of(result['ratio'])} times as long as by hand")


def seconds_between_files(experiment: Path) -> float:
    """Seconds from the first run's config.json to the last run's results.json."""
    begun = min(file.stat().st_mtime for file in experiment.glob("seed-*/config.json"))
    return max(file.stat().st_mtime for file in experiment.glob("seed-*/results.json")) - begun


def run(command: Sequence[str]) -> None:
    """Run a command of the package to its end."""
    subprocess.run(
        [sys.executable, "-m", "keras_resnet", *command],
        cwd=timing.ROOT,
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
