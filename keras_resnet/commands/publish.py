"""Ship a trained net with the package, or store a run's small files (for those who publish this package).

python -m keras_resnet.commands.publish experiments/resnet20/seed-0
python -m keras_resnet.commands.publish RUN --results results/resnet20-fast/seed-0
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from keras_resnet import console
from keras_resnet.commands import flags, startup, terminal
from keras_resnet.inference.open import DEFAULT_MODEL


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        prog="python -m keras_resnet.commands.publish",
        description=__doc__,
        formatter_class=flags.HelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder to ship")
    parser.add_argument(
        "--output",
        type=Path,
        default=DEFAULT_MODEL,
        metavar="DIR",
        help="(default: in the package)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="only store its small files there, e.g. results/x/seed-0",
    )
    arguments = parser.parse_args(argv)
    startup.start_keras()
    from keras_resnet.zoo.publish import pack, store_results

    if arguments.results:
        store_results(arguments.run, arguments.results)
        console.print_line(f"wrote {arguments.results}")
        return 0
    pack(arguments.run, arguments.output)
    size = (arguments.output / "model.keras").stat().st_size
    console.print_line(f"wrote {arguments.output}: model.keras {size / 2**20:.2f} MiB and its card")
    return 0


if __name__ == "__main__":
    sys.exit(terminal.run(main))
