"""Measure how training grows with depth and batch size, up to ResNet-1202, on this machine's CPU.

    pip install -r requirements-report.txt
    python benchmarks/growth.py           about 5 minutes on 2 cores, 12 GiB of memory
    python benchmarks/growth.py --quick   about a minute: does it work?

Every size is a process of its own, in interleaved turns, as in `run.py`. Writes growth.json and
growth.png. ResNet-1202 is measured at batch 8, with other depths beside it: at batch 128 its
compilation and updates would take longer than all the rest.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measure, run  # noqa: E402
from benchmarks.measure import Worker  # noqa: E402
from keras_resnet.commands import flags, terminal  # noqa: E402
from keras_resnet.errors import UserError  # noqa: E402
from keras_resnet.runs import files  # noqa: E402

BATCH, SMALL_BATCH = 128, 8
DEPTHS, SMALL_DEPTHS = (20, 32, 44, 56, 110), (20, 56)
BATCHES = (32, 64, 128, 256, 512, 1024)
DEEPEST = 1202
DEEPEST_MEMORY = 12_000  # MiB that training it (4.5 GiB) and exporting it (4 GiB) at once need


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="turns of each size (default: %(default)s)")
    add("--seconds", type=float, default=1.0, help="of a turn, at least (default: %(default)s)")
    add("--skip-1202", action="store_true", help="without ResNet-1202")
    add("--data-dir", help="folder of tensorflow_datasets (default: $TFDS_DATA_DIR)")
    add("--output", type=Path, help="folder of the two files (default: benchmarks/)")
    add("--quick", action="store_true", help="2 depths, 2 batch sizes; files in a temporary folder")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1 or not arguments.seconds > 0:
        raise UserError(
            "--rounds must be 1 or more and --seconds above 0. "
            f"Received: {arguments.rounds} and {arguments.seconds}"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("growth.py needs matplotlib: pip install -r requirements-report.txt")
    if arguments.quick:
        arguments.output = arguments.output or Path(tempfile.mkdtemp(prefix="benchmarks-"))
    output = arguments.output or measure.ROOT / "benchmarks"
    try:
        result = _measure(arguments)
    except measure.WorkerFailed as error:
        raise UserError(str(error), exit_code=1) from None
    files.make_folder(output)
    files.write_json(output / "growth.json", result)
    print("\n" + table(result))
    with files.atomic(output / "growth.png") as temporary:
        plot(result, temporary)
    print(f"wrote growth.json and growth.png to {output}")
    return 0


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    depths, batches = ((8, 20), (32, 128)) if arguments.quick else (DEPTHS, BATCHES)
    deepest, small = (26, (8,)) if arguments.quick else (DEEPEST, SMALL_DEPTHS)
    dataset, data_dir = run.find_data(arguments.data_dir)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepare = {"folder": folder, "dataset": dataset, "data_dir": data_dir, "depths": []}
        with Worker({"contender": "prepare", **prepare}) as worker:
            result = run.facts_of_run(worker.ready())
        result["settings"] = {"rounds": arguments.rounds, "seconds": arguments.seconds}
        with ExitStack() as stack:
            sizes = [(depth, BATCH) for depth in depths]
            ready: list[Worker] = []
            if arguments.skip_1202 or measure.memory_available() < DEEPEST_MEMORY:
                why = "--skip-1202" if arguments.skip_1202 else "too little memory"
                result["deepest"] = {"depth": deepest, "skipped": why}
            else:
                print(f"ResNet-{deepest}: training and exporting ...", flush=True)
                # Side by side: most of their time is Python's, on one core each.
                spec = {"depth": deepest, "folder": folder}
                exporter = stack.enter_context(Worker({"contender": "export", **spec}))
                ready.append(_worker(stack, deepest, SMALL_BATCH, folder))
                result["deepest"] = {"depth": deepest, "batch": SMALL_BATCH}
                ready[0].facts = ready[0].ready()
                result["deepest"]["export"] = exporter.ready()
                sizes += [(depth, SMALL_BATCH) for depth in small]
            print("training at each depth ...", flush=True)
            rows = _rows(stack, sizes, ready, folder, arguments)
            if ready:
                result["deepest"] |= rows[0]
        result["depth"] = sorted(rows, key=lambda row: (-row["batch"], row["depth"]))
        print("training at each batch size ...", flush=True)
        with ExitStack() as stack:
            sizes = [(20, batch) for batch in batches]
            result["batch"] = _rows(stack, sizes, [], folder, arguments)
    result["linear_in_depth"] = _linear(result["depth"])
    result["seconds"] = round(time.perf_counter() - begun)
    return result


def _worker(stack: ExitStack, depth: int, batch: int, folder: str) -> Worker:
    spec = {"contender": "ours_auto", "depth": depth, "batch": batch, "folder": folder}
    return stack.enter_context(Worker(spec))


def _rows(
    stack: ExitStack,
    sizes: Sequence[tuple[int, int]],
    ready: Sequence[Worker],
    folder: str,
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Measure training at each (depth, batch), beside workers that are warm already."""
    new = [_worker(stack, depth, batch, folder) for depth, batch in sizes]
    for worker in new:
        worker.facts = worker.ready()
    workers = {worker.name: worker for worker in (*ready, *new)}
    rates, others = measure.interleave(workers, arguments.rounds, arguments.seconds)
    rows = []
    for name, worker in workers.items():
        batch, facts = worker.spec["batch"], worker.facts
        images = measure.summary([batch * rate for rate in rates[name]])
        rows.append(
            {
                "depth": worker.spec["depth"],
                "batch": batch,
                "precision": facts["precision"],
                "parameters": facts["parameters"],
                "multiply_adds": facts["multiply_adds"],
                "images_per_second": images,
                "milliseconds_per_image": float(f"{1000 / images['median']:.4g}"),
                "build_seconds": facts["build_seconds"],
                "first_updates_seconds": facts["warm_up_seconds"],
                "peak_memory_mib": worker.peak_memory(),
                "cpu_of_others_percent": others,
            }
        )
    return rows


def _linear(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each batch size the line through time per image against depth (milliseconds)."""
    fits = {}
    for batch in sorted({row["batch"] for row in rows}):
        points = [(r["depth"], r["milliseconds_per_image"]) for r in rows if r["batch"] == batch]
        if len(points) > 2:  # through two, any line fits
            fit = measure.line_fit(*zip(*points, strict=True))
            fits[str(batch)] = {key: float(f"{value:.4g}") for key, value in fit.items()}
    return fits


def table(result: dict[str, Any]) -> str:
    """The whole result as text."""
    machine = result["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores; {result['dataset']}; medians (min..max) of "
        f"{result['settings']['rounds']} interleaved rounds",
        "",
        "depth  batch            images/s  ms/image  build s  first update s  peak MiB",
    ]
    for row in (*result["depth"], *result["batch"]):
        rate = row["images_per_second"]
        spread = f"{rate['median']:.0f} ({rate['min']:.0f}..{rate['max']:.0f})"
        lines.append(
            f"{row['depth']:5}  {row['batch']:5}  {spread:>18}"
            f"  {row['milliseconds_per_image']:8.3g}  {row['build_seconds']:7.1f}"
            f"  {row['first_updates_seconds'][0]:14.1f}"
            f"  {row['peak_memory_mib']:8,}"
        )
    for batch, fit in result["linear_in_depth"].items():
        lines.append(
            f"batch {batch}: {fit['intercept']:.3g} + {fit['slope']:.3g} x depth ms per image; no "
            f"depth is more than {fit['largest_error']:.1%} off the line"
        )
    deepest = result["deepest"]
    if "skipped" in deepest:
        lines.append(f"ResNet-{deepest['depth']}: not measured ({deepest['skipped']})")
    else:
        updates = ", ".join(f"{t:.1f}" for t in deepest["first_updates_seconds"])
        export = deepest["export"]
        seconds = export["seconds"]
        size = {kind: f"{count / 2**20:.0f} MiB" for kind, count in export["bytes"].items()}
        lines.append(
            f"ResNet-{deepest['depth']}, batch {deepest['batch']}: built in "
            f"{deepest['build_seconds']:.0f} s; updates in {updates} s "
            f"(the first compiles); {deepest['peak_memory_mib']:,} MiB; exported in "
            f"{seconds['saved_model']:.0f} s (SavedModel, {size['saved_model']}) and "
            f"{seconds['onnx']:.0f} s (ONNX, {size['onnx']}) with {export['peak_memory_mib']:,} MiB"
        )
    others = max(r["cpu_of_others_percent"] for r in (*result["depth"], *result["batch"]))
    if others > 5:
        lines.append(f"warning: {others:.0f} % of the CPU time went to others; measure again")
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Time per image against depth, with the lines; images per second against batch size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 3.8), layout="constrained")
    speed, left, right = figure.subplots(1, 3)
    for batch in sorted({row["batch"] for row in result["depth"]}, reverse=True):
        rows = [row for row in result["depth"] if row["batch"] == batch]
        depths = [row["depth"] for row in rows]
        rates = [row["images_per_second"]["median"] for row in rows]
        times = [row["milliseconds_per_image"] for row in rows]
        speed.plot(depths, rates, "o-", label=f"batch {batch}")
        points = left.plot(depths, times, "o", label=f"batch {batch}")
        if fit := result["linear_in_depth"].get(str(batch)):
            line = [fit["intercept"] + fit["slope"] * depth for depth in depths]
            text = f"straight line, at most {fit['largest_error']:.0%} off"
            left.plot(depths, line, "-", color=points[0].get_color(), linewidth=1, label=text)
    ticks = sorted({row["depth"] for row in result["depth"]})
    for axis, name in ((speed, "images/s"), (left, "milliseconds per image")):
        axis.set(xscale="log", yscale="log", xlabel="depth (layers)", ylabel=name)
        axis.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8)
        axis.set_xticks([], minor=True)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.legend(fontsize=8, frameon=False)
    precision = result["batch"][0]["precision"]
    speed.set_title(f"Training ({precision}): images/s against depth", fontsize=10)
    left.set_title("Time per image against depth", fontsize=10)

    rows = result["batch"]
    rates = [row["images_per_second"] for row in rows]
    sizes = [row["batch"] for row in rows]
    medians = [rate["median"] for rate in rates]
    below = [rate["median"] - rate["min"] for rate in rates]
    above = [rate["max"] - rate["median"] for rate in rates]
    right.errorbar(sizes, medians, yerr=[below, above], fmt="o-", capsize=3)
    right.set_xscale("log", base=2)
    right.set_xticks(sizes, [str(size) for size in sizes])
    right.set_ylim(0, 1.1 * max(rate["max"] for rate in rates))
    right.set(xlabel="batch size", ylabel="images/s")
    right.set_title("ResNet-20: images/s against batch size", fontsize=10)
    for axis in (speed, left, right):
        axis.spines[["top", "right"]].set_visible(False)
    machine, version = result["machine"], result["versions"]["tensorflow"]
    title = f"{machine['cpu']}, {machine['cores']} cores; TensorFlow {version}"
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(terminal.run(main))
