"""How does training grow with depth, up to ResNet-1202, and with the batch size?

    python -m benchmarks.growth              about 8 minutes on 2 cores, 8 GiB of memory

ResNet-1202 is measured at batch 8, with other depths beside it: at batch 128 its compilation and updates
would take longer than all the rest. Writes growth.json and prints its tables.
"""

from collections.abc import Sequence

from benchmarks import timing

# Depths and batch sizes.
CONTESTS = {
    "depth": [(20, 128), (32, 128), (44, 128), (56, 128), (110, 128), (20, 8), (56, 8), (1202, 8)],
    "batch size": [(20, batch_size) for batch_size in (32, 64, 128, 256, 512, 1024)],
}
QUICK_CONTESTS = {"depth": [(8, 32), (14, 32)]}


def main(argv: Sequence[str] | None = None) -> None:
    arguments = timing.parse(timing.argument_parser(__doc__, rounds=3, seconds=1.0), argv)
    contests = {}
    for title, sizes in (QUICK_CONTESTS if arguments.quick else CONTESTS).items():
        specs = {
            f"ResNet-{depth}, batch {batch_size}": {
                "contender": "keras_training", "depth": depth, "batch_size": batch_size
            }
            for depth, batch_size in sizes
        }  # fmt: skip
        contests[title] = timing.contest(specs, [], arguments)
    timing.report(contests, "growth", arguments)


if __name__ == "__main__":
    main()
