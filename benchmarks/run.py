"""Measure training and inference against PyTorch and stock Keras on this machine's CPU.

    pip install -r requirements-torch.txt -r requirements-report.txt
    python benchmarks/run.py              about 8 minutes on 2 cores
    python benchmarks/run.py --quick      about 2 minutes: does it work? Its numbers mean little

Every contender is a process of its own; all take short turns, interleaved and repeated, with the
machine's own peak (a large matmul) among them. Writes results.json and speed.png. Let nothing else
run: PyTorch's threads wait for each other and suffer most from other load.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measure, outcome  # noqa: E402
from benchmarks.measure import Worker  # noqa: E402
from keras_resnet.commands import flags, terminal  # noqa: E402
from keras_resnet.errors import UserError  # noqa: E402
from keras_resnet.nets.family import blocks_per_stage  # noqa: E402
from keras_resnet.runs import files  # noqa: E402
from keras_resnet.runs.publishing import command_without_folders  # noqa: E402

TRAINING = ("ours_auto", "ours_float32", "stock_float32", "torch_float32", "torch_bfloat16")
INFERENCE = ("infer_keras", "infer_saved_model", "onnx_float32", "onnx_int8", "torch_inference")
PEAKS = ("matmul_bfloat16", "matmul_float32")
TRAINING_BATCH, INFERENCE_BATCH = 128, 256
CHECKPOINT_EVERY = 500  # updates; train.py's default
FIRST_UPDATE_LIMIT = 180.0  # seconds after which waiting for it is given up


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--depths", type=int, nargs="+", default=[20, 56, 110], help="(default: 20 56 110)")
    add("--rounds", type=int, default=7, help="turns of each contender (default: %(default)s)")
    add("--seconds", type=float, default=1.5, help="of a turn, at least (default: %(default)s)")
    add("--data-dir", help="folder of tensorflow_datasets (default: $TFDS_DATA_DIR)")
    add("--output", type=Path, help="folder of the two files (default: benchmarks/)")
    add("--quick", action="store_true", help="depth 20, 2 rounds; files in a temporary folder")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.depths, arguments.rounds, arguments.seconds = [20], 2, 0.5
        arguments.output = arguments.output or Path(tempfile.mkdtemp(prefix="benchmarks-"))
    arguments.output = arguments.output or measure.ROOT / "benchmarks"
    check(arguments, {"torch": "requirements-torch.txt", "matplotlib": "requirements-report.txt"})
    try:
        result = _measure(arguments)
    except measure.WorkerFailed as error:
        raise UserError(str(error), exit_code=1) from None
    files.make_folder(arguments.output)
    files.write_json(arguments.output / "results.json", result)
    print("\n" + outcome.table(result))
    with files.atomic(arguments.output / "speed.png") as temporary:
        outcome.plot(result, temporary)
    print(f"wrote results.json and speed.png to {arguments.output}")
    return 0


def check(arguments: argparse.Namespace, needs: Mapping[str, str]) -> None:
    """Raise UserError where the flags make no sense, or a package is missing.

    Args:
        arguments: with `depths`, `rounds` and `seconds`.
        needs: package -> the requirements file that installs it.
    """
    for depth in arguments.depths:
        try:
            blocks_per_stage(depth)
        except ValueError as error:
            raise UserError(f"--depths: {error}") from None
    if arguments.rounds < 1 or not arguments.seconds > 0:
        raise UserError(
            "--rounds must be 1 or more and --seconds above 0. "
            f"Received: {arguments.rounds} and {arguments.seconds}"
        )
    for package, file in needs.items():
        if importlib.util.find_spec(package) is None:
            raise UserError(f"the benchmark needs {package}: pip install -r {file}")


def find_data(data_dir: str | None) -> tuple[str, str | None]:
    """Name and folder of the data set to use: CIFAR-10 where it is, else the synthetic one."""
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    path = Path(folder).expanduser().resolve()
    if (path / "cifar10").is_dir():
        return "cifar10", str(path)
    if data_dir:
        raise UserError(f"--data-dir must hold cifar10/. Received: {data_dir}")
    return "synthetic", None


def start(stack: ExitStack, names: Sequence[str], spec: dict[str, Any]) -> dict[str, Worker]:
    """Start contenders and wait until all are warm; `stack` ends them."""
    workers = {n: stack.enter_context(Worker({"contender": n, **spec})) for n in names}
    for worker in workers.values():
        worker.facts = worker.ready()
    return workers


def facts_of_run(prepared: dict[str, Any]) -> dict[str, Any]:
    """What results.json says of machine, versions and command; see `keras_nets.prepare`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command_without_folders(shlex.join(["python", *sys.argv])),
        "git_commit": prepared["git_commit"],
        "machine": {
            "cpu": prepared["cpu"],
            "cores": os.cpu_count(),
            "bfloat16_flags": prepared["bfloat16_flags"],
            "onednn": prepared["onednn"],
            "memory_mib": memory,
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **prepared["versions"]},
        "dataset": prepared["dataset"],
    }


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    dataset, data_dir = find_data(arguments.data_dir)
    begun = time.perf_counter()
    inference_depths = sorted({min(arguments.depths), max(arguments.depths)})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        _say("train.py, from its start to its first update")
        first_update = _first_update(dataset, data_dir, Path(folder))
        _say("writing the files of the inference contenders")
        prepare = {"folder": folder, "dataset": dataset, "data_dir": data_dir}
        with Worker({"contender": "prepare", "depths": inference_depths, **prepare}) as worker:
            result = facts_of_run(worker.ready())
        result |= {
            "settings": {
                "rounds": arguments.rounds,
                "seconds": arguments.seconds,
                "training_batch": TRAINING_BATCH,
                "inference_batch": INFERENCE_BATCH,
            },
            "first_update_seconds": first_update,
            "training": {},
            "inference": {},
        }
        peaks = start(stack, PEAKS, {"share": 1 / 3})
        for depth in arguments.depths:
            _say(f"training at depth {depth}")
            result["training"][str(depth)] = _training(depth, folder, peaks, arguments, result)
        for depth in inference_depths:
            _say(f"inference at depth {depth}")
            result["inference"][str(depth)] = _inference(depth, folder, arguments)
    result["checks"] = outcome.checks(result)
    result["seconds"] = round(time.perf_counter() - begun)
    return result


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what} ...", flush=True)


def _first_update(dataset: str, data_dir: str | None, folder: Path) -> float:
    """Seconds from the start of `python train.py` until its first update is checkpointed."""
    command = [sys.executable, "train.py", "--dataset", dataset, "--checkpoint-every", "1"]
    command += ["--output-dir", str(folder), "--name", "first"]
    command += ["--data-dir", data_dir] if data_dir else []
    begun = time.perf_counter()
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=measure.ROOT, stdout=log, stderr=log)
        try:
            checkpoints = folder / "first/seed-0/checkpoints"
            while not list(checkpoints.glob("step-*.npz")):
                if process.poll() is not None:
                    last = ((folder / "log").read_text().splitlines() or ["nothing printed"])[-1]
                    raise measure.WorkerFailed(f"train.py made no update: {last}")
                if time.perf_counter() - begun > FIRST_UPDATE_LIMIT:
                    raise measure.WorkerFailed(
                        f"train.py made no update in {FIRST_UPDATE_LIMIT:.0f} s"
                    )
                time.sleep(0.02)
            seconds = time.perf_counter() - begun
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        finally:
            process.kill()
            process.wait()
    return round(seconds, 1)


def _training(
    depth: int,
    folder: str,
    peaks: dict[str, Worker],
    arguments: argparse.Namespace,
    result: dict[str, Any],
) -> dict[str, Any]:
    # The step alone at the smallest depth only, where what surrounds it weighs most.
    names = (*TRAINING, "bare") if depth == min(arguments.depths) else TRAINING
    spec = {"depth": depth, "batch": TRAINING_BATCH, "folder": folder}
    with ExitStack() as stack:
        workers = start(stack, names, spec)
        rates, others = measure.interleave(
            {**workers, **peaks}, arguments.rounds, arguments.seconds
        )
        memory = {name: worker.peak_memory() for name, worker in workers.items()}
        checkpoint = workers["ours_auto"].ask("checkpoint")
        facts = {name: worker.facts for name, worker in workers.items()}
    result["versions"] |= facts["torch_float32"]["versions"]
    ours = facts["ours_auto"]
    flops = measure.training_flops(ours["multiply_adds"])
    peak = {
        name.removeprefix("matmul_"): [rate * peaks[name].facts["flops"] for rate in rates[name]]
        for name in peaks
    }
    images = {name: [TRAINING_BATCH * rate for rate in rates[name]] for name in names}
    contenders = {}
    for name in names:
        bfloat16 = "bfloat16" in facts[name].get("precision", name)
        reached = [flops * rate for rate in images[name]]
        contenders[name] = {
            "precision": "bfloat16" if bfloat16 else "float32",
            "images_per_second": measure.summary(images[name]),
            "of_peak": measure.ratio(reached, peak["bfloat16" if bfloat16 else "float32"]),
            "peak_memory_mib": memory[name],
            "warm_up_seconds": facts[name]["warm_up_seconds"],
        }
    updates = CHECKPOINT_EVERY / measure.statistics.median(rates["ours_auto"])
    saving = measure.statistics.median(checkpoint["seconds"])
    return {
        "parameters": ours["parameters"],
        "multiply_adds": ours["multiply_adds"],
        "flops_per_image": flops,
        "peak_gflops": {
            k: measure.summary([v / 1e9 for v in values]) for k, values in peak.items()
        },
        "contenders": contenders,
        "ratios": {
            name: measure.ratio(images["ours_auto"], images[name])
            for name in names
            if name != "ours_auto"
        },
        "ours_float32_to_stock": measure.ratio(images["ours_float32"], images["stock_float32"]),
        "checkpoint": {
            "seconds": round(saving, 4),
            "bytes": checkpoint["bytes"],
            "percent_of_500_updates": round(100 * saving / updates, 3),
        },
        "cpu_of_others_percent": others,
    }


def _inference(depth: int, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    spec = {"depth": depth, "batch": INFERENCE_BATCH, "folder": folder}
    with ExitStack() as stack:
        workers = start(stack, INFERENCE, spec)
        rates, others = measure.interleave(workers, arguments.rounds, arguments.seconds / 3)
        images = {n: [INFERENCE_BATCH * rate for rate in rates[n]] for n in INFERENCE}
        return {
            "contenders": {
                name: {
                    "images_per_second": measure.summary(images[name]),
                    "to_torch": measure.ratio(images[name], images["torch_inference"]),
                    "peak_memory_mib": workers[name].peak_memory(),
                }
                for name in INFERENCE
            },
            "cpu_of_others_percent": others,
        }


if __name__ == "__main__":
    sys.exit(terminal.run(main))
