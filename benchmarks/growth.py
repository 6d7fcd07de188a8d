"""How does training grow with depth, up to ResNet-1202, and with the batch size?

    pip install -r requirements-report.txt
    python -m benchmarks.growth              about 8 minutes on 2 cores, 8 GiB of memory
    python -m benchmarks.growth --quick      about 2 minutes

ResNet-1202 is measured at batch 8, with other depths beside it: at batch 128 its compilation and updates
would take longer than all the rest. Writes growth.json and growth.png.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import timing

BATCH_SIZE, SMALL_BATCH_SIZE = 128, 8
BY_DEPTH = [(depth, BATCH_SIZE) for depth in (20, 32, 44, 56, 110)]
BY_DEPTH += [(depth, SMALL_BATCH_SIZE) for depth in (20, 56, 1202)]
BY_BATCH_SIZE = [(20, batch_size) for batch_size in (32, 64, 128, 256, 512, 1024)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = timing.argument_parser(__doc__, rounds=3, seconds=1.0)
    arguments = timing.parse(parser, argv)
    data = timing.find_data(arguments)
    result = timing.facts(arguments, data)
    quick = [(8, 32), (14, 32), (8, 16)], [(8, 16), (8, 32)]
    sizes = quick if arguments.quick else (BY_DEPTH, BY_BATCH_SIZE)
    for key, points in zip(("depth", "batch"), sizes, strict=True):
        specs = {
            f"ResNet-{depth}, batch {batch_size}": {
                "contender": "keras_training", "depth": depth, "batch_size": batch_size, **data
            }
            for depth, batch_size in points
        }  # fmt: skip
        with ExitStack() as stack:
            workers = timing.start(stack, specs)
            rates, others = timing.interleave(workers, arguments.rounds, arguments.seconds)
            result[key] = []
            for (name, worker), (depth, batch) in zip(workers.items(), points, strict=True):
                result["versions"] |= worker.facts.pop("versions")
                images = timing.summary([batch * rate for rate in rates[name]])
                result[key].append(
                    {
                        "depth": depth,
                        "batch": batch,
                        "images_per_second": images,
                        "milliseconds_per_image": float(f"{1000 / images['median']:.4g}"),
                        "peak_memory_mib": worker.peak_memory(),
                        "cpu_of_others_percent": others,
                        **worker.facts,
                    }
                )
    timing.write(result, arguments.output / "growth.json")
    plot(result, arguments.output / "growth.png")
    print(text(result))
    return 0


def line_through(points: Iterable[tuple[float, float]]) -> tuple[float, float, float]:
    """Least squares of y = intercept + slope x, weighted by 1/y^2.

    Returns:
        Intercept, slope, and the largest error relative to y.
    """
    weighted = [(x, y, 1 / y**2) for x, y in points]
    total = sum(w for _, _, w in weighted)
    mean_x = sum(w * x for x, _, w in weighted) / total
    mean_y = sum(w * y for _, y, w in weighted) / total
    slope = sum(w * (x - mean_x) * (y - mean_y) for x, y, w in weighted)
    slope /= sum(w * (x - mean_x) ** 2 for x, _, w in weighted)
    intercept = mean_y - slope * mean_x
    return intercept, slope, max(abs(intercept + slope * x - y) / y for x, y, _ in weighted)


def text(result: dict[str, Any]) -> str:
    """The result as a table in Markdown, and the line through the depths at each batch size."""
    rows = [*result["depth"], *result["batch"]]
    header = ["depth", "batch size", "images/s", "ms per image", "first update, s", "memory, MiB"]
    cells = [
        [
            str(row["depth"]),
            str(row["batch"]),
            timing.text_of(row["images_per_second"], 0),
            f"{row['milliseconds_per_image']:.3g}",
            f"{row['seconds_to_first_update']:.0f}",
            f"{row['peak_memory_mib']:,}",
        ]
        for row in rows
    ]
    others = max(row["cpu_of_others_percent"] for row in rows)
    lines = [timing.describe(result, others), timing.table(header, cells)]
    for batch, points in by_batch(result["depth"]).items():
        intercept, slope, error = line_through(points)
        lines.append(
            f"batch {batch}: {intercept:.3g} + {slope:.3g} x depth ms per image; "
            f"no depth is more than {error:.1%} off that line"
        )
    return "\n".join(lines)


def by_batch(rows: Sequence[dict[str, Any]]) -> dict[int, list[tuple[float, float]]]:
    """Batch size -> (depth, milliseconds per image) of each row."""
    points: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        points.setdefault(row["batch"], []).append((row["depth"], row["milliseconds_per_image"]))
    return points


def plot(result: dict[str, Any], path: Path) -> None:
    """Time per image against depth, with straight lines; images per second against batch size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for batch, points in by_batch(result["depth"]).items():
        depths, times = zip(*points, strict=True)
        dots = left.plot(depths, times, "o", label=f"batch {batch}, measured")
        intercept, slope, error = line_through(points)
        ends = (min(depths), max(depths))
        left.plot(
            range(ends[0], ends[1] + 1),
            [intercept + slope * depth for depth in range(ends[0], ends[1] + 1)],
            color=dots[0].get_color(),
            linewidth=1,
            label=f"batch {batch}, straight line (at most {error:.0%} off)",
        )
    ticks = sorted({row["depth"] for row in result["depth"]})
    left.set(xscale="log", yscale="log", xlabel="depth (layers)", ylabel="milliseconds per image")
    left.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8)
    left.set_xticks([], minor=True)
    left.yaxis.set_major_formatter("{x:g}")
    left.legend(fontsize=8, frameon=False)
    left.set_title("Training: time per image (logarithmic axes)", fontsize=10)

    rates = [row["images_per_second"] for row in result["batch"]]
    medians = [rate["median"] for rate in rates]
    whiskers = [
        [rate["median"] - rate["min"] for rate in rates],
        [rate["max"] - rate["median"] for rate in rates],
    ]
    sizes = [row["batch"] for row in result["batch"]]
    label = f"median of {result['settings']['rounds']} rounds; whiskers: slowest, fastest"
    right.errorbar(sizes, medians, yerr=whiskers, fmt="o-", capsize=3, label=label)
    right.set_xscale("log", base=2)
    right.set_xticks(sizes, [str(size) for size in sizes])
    right.set_ylim(0, 1.1 * max(rate["max"] for rate in rates))
    right.set(xlabel="batch size", ylabel="images/s")
    right.legend(fontsize=8, frameon=False, loc="lower right")
    right.set_title(f"Training ResNet-{result['batch'][0]['depth']}: images/s", fontsize=10)
    machine = result["machine"]
    precision = result["batch"][0]["precision"]
    figure.suptitle(f"{machine['cpu']}, {machine['cores']} cores, {precision}", fontsize=10)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
