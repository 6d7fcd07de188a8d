"""Interleaved timing: contenders, each in a process of its own, take turns.

In one process the thread pools of TensorFlow, PyTorch and ONNX Runtime would disturb each other. All
contenders are started and warmed up first. Then one works while the others wait, in many short turns,
so that a slow minute of the machine hits all of them. Nothing here imports a framework.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from keras_resnet.runs import provenance
from keras_resnet.training import cpu

ROOT = Path(__file__).resolve().parent.parent
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


class Worker:
    """One contender in a process of its own. Use it as a context manager: leaving it ends the process.

    Args:
        spec: what to run, as JSON types: `contender` is a module of `benchmarks/contenders`, `python` the
            interpreter (default: this one), `backend` Keras's backend (default: this process's), `checkout`
            the folder of another version of keras_resnet; the contender reads the rest.
    """

    def __init__(self, spec: Mapping[str, Any]):
        self.spec = dict(spec)
        self.facts: dict[str, Any] = {}  # what the contender says about itself
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        self._log = Path(self._folder.name) / "log"
        # Only CPUs are compared: one framework would see a GPU and another would not.
        hidden = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
        usual = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}  # as in our commands
        environment = {**usual, **os.environ, **hidden}
        if backend := self.spec.get("backend"):
            environment["KERAS_BACKEND"] = backend
        sent = {**self.spec, "folder": self._folder.name, "started": time.time()}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [self.spec.get("python", sys.executable), "-m", "benchmarks.worker"]
                + [json.dumps(sent)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is this process's
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes the pipes and waits
            self._process.kill()
        self._folder.cleanup()

    def wait_until_warm(self) -> None:
        """Wait for the warm-up updates, then set `facts`."""
        self.facts = self._answer()

    def rate(self, seconds: float) -> float:
        """Updates (or batches) per second over one turn of at least `seconds`."""
        assert self._process.stdin
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["updates"] / answer["seconds"]

    def peak_memory(self) -> int:
        """Peak resident memory of the process so far, in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    def cpu_seconds(self) -> float:
        """CPU time of the process so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            last = (self._log.read_text().strip().splitlines() or ["it printed nothing"])[-1]
            raise SystemExit(
                f"error: contender {self.spec['contender']} ended with code {code}: {last[:300]}"
            )
        return json.loads(line)


def contest(
    specs: Mapping[str, Mapping[str, Any]],
    pairs: Sequence[tuple[str, str]],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Time contenders against each other.

    Args:
        specs: name -> what a `Worker` takes, with `batch_size`; the data set and the backend's Python are
            added here.
        pairs: names to compare, the second as the baseline; those without a spec are left out.
        arguments: what `parse` returned.
    """
    workers: dict[str, Worker] = {}
    with ExitStack() as stack:
        for name, spec in specs.items():  # one by one: nothing slows a contender's first update
            print(f"{time.strftime('%H:%M:%S')} starting {name}", flush=True)
            python = getattr(arguments, f"{spec.get('backend')}_python", sys.executable)
            workers[name] = Worker({"python": python, **arguments.data, **spec})
            stack.enter_context(workers[name]).wait_until_warm()
        rates, others = interleave(workers, arguments.rounds, arguments.seconds)
        images = {name: [specs[name]["batch_size"] * r for r in rates[name]] for name in rates}
        return {
            "contenders": {
                name: {
                    "images_per_second": summary(images[name]),
                    "peak_memory_mib": worker.peak_memory(),
                    **worker.facts,
                }
                for name, worker in workers.items()
            },
            "ratios": {
                f"{one} / {other}": ratio(images[one], images[other])
                for one, other in pairs
                if one in specs and other in specs
            },
            "cpu_of_others_percent": others,
        }


def interleave(
    workers: Mapping[str, Worker], rounds: int, seconds: float
) -> tuple[dict[str, list[float]], float]:
    """Let all workers take turns of `seconds` each; every second round in reverse order against drift.

    Returns:
        Updates per second of each worker in each round, and the percentage of the machine's CPU time that
        other processes took meanwhile.
    """

    def cpu_seconds_of_others() -> float:
        line = Path("/proc/stat").read_text().partition("\n")[0]
        fields = [int(field) for field in line.split()[1:9]]
        busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # idle, iowait
        return busy - sum(worker.cpu_seconds() for worker in workers.values())

    begun, before = time.perf_counter(), cpu_seconds_of_others()
    rates: dict[str, list[float]] = {name: [] for name in workers}
    for k in range(rounds):
        for name in list(workers)[:: -1 if k % 2 else 1]:
            rates[name].append(workers[name].rate(seconds))
    others = cpu_seconds_of_others() - before
    available = (time.perf_counter() - begun) * (os.cpu_count() or 1)
    return rates, round(max(0.0, 100 * others / available), 1)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, smallest and largest of one number per round, and all of them, to four digits."""
    values = [float(f"{value:.4g}") for value in values]
    median = float(f"{statistics.median(values):.4g}")
    return {"median": median, "min": min(values), "max": max(values), "rounds": values}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """How many times as large `ours` is, round by round."""
    return summary([a / b for a, b in zip(ours, theirs, strict=True)])


def text_of(spread: Mapping[str, Any], digits: int = 2) -> str:
    """A summary as `median (min..max)`."""
    median, least, most = (f"{spread[key]:,.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({least}..{most})"


def argument_parser(
    description: str | None, rounds: int, seconds: float, depths: Sequence[int] = ()
) -> argparse.ArgumentParser:
    """The flags that the scripts share, with their defaults; `--depths` where there are any."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=rounds, help="turns of each contender (default: %(default)s)")
    add("--seconds", type=float, default=seconds, help="per turn, at least (default: %(default)s)")
    add("--data-dir", default=os.environ.get("TFDS_DATA_DIR"),
        help="folder of tensorflow_datasets (default: $TFDS_DATA_DIR, else synthetic images)")  # fmt: skip
    for backend in ("torch", "jax"):
        text = f"Python that has {backend} (default: this one)"
        add(f"--{backend}-python", default=sys.executable, metavar="PATH", help=text)
    if depths:
        text = f"(default: {' '.join(map(str, depths))})"
        add("--depths", type=int, nargs="+", default=depths, help=text)
    add("--output", type=Path, help="folder to write to (default: benchmarks/results)")
    add("--quick", action="store_true", help="does it work? Its numbers mean nothing")
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the flags; `--quick` means two short rounds of ResNet-20 and a temporary folder."""
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.depths = 2, 0.3, [20]
        arguments.output = arguments.output or Path(tempfile.mkdtemp(prefix="benchmarks-"))
    arguments.output = arguments.output or ROOT / "benchmarks/results"
    # What a contender's spec says about its data; speed does not depend on the pixels.
    dataset = "cifar10" if arguments.data_dir else "synthetic"
    arguments.data = {"dataset": dataset, "data_dir": arguments.data_dir}
    return arguments


def write(result: Mapping[str, Any], name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write a result as `<name>.json`, with date, commit, machine and settings, which are added to it."""
    flags = ", ".join(sorted(cpu.cpu_flags() & BFLOAT16_FLAGS)) or "no bfloat16 instructions"
    result = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "git_commit": provenance.git_commit() or "unknown",
        "machine": f"{cpu.cpu_name()}, {os.cpu_count()} cores, {flags}",
        "dataset": arguments.data["dataset"],
        "settings": {"rounds": arguments.rounds, "seconds": arguments.seconds},
        **result,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {path}")
    return result


def report(
    contests: Mapping[str, Mapping[str, Any]], name: str, arguments: argparse.Namespace
) -> None:
    """Write contests (title -> what `contest` returned) as `<name>.json`, and print them in Markdown."""
    result = write({"contests": contests}, name, arguments)
    versions: dict[str, str] = {}
    for title, found in contests.items():
        rows = [[title, "precision", "images/s", "first update, s", "memory, MiB"], ["---"] * 5]
        for contender, row in found["contenders"].items():
            versions |= row["versions"]
            first, memory = row["seconds_to_first_update"], row["peak_memory_mib"]
            speed = text_of(row["images_per_second"], 0)
            rows.append([contender, row["precision"], speed, f"{first:.0f}", f"{memory:,}"])
        if found["ratios"]:
            rows += [[], [title, "times as fast"], ["---"] * 2]
            rows += [[pair, text_of(spread)] for pair, spread in found["ratios"].items()]
        print("\n", *(f"| {' | '.join(row)} |\n" if row else "\n" for row in rows), sep="")
    others = max(found["cpu_of_others_percent"] for found in contests.values())
    print(
        f"{result['machine']}; {', '.join(f'{package} {version}' for package, version in versions.items())}; "
        f"commit {result['git_commit'][:7]}. Medians (min..max) of {arguments.rounds} "
        f"interleaved rounds; other processes took at most {others} % of the CPU time (above 5: noise)."
    )
