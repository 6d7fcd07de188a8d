"""Put a trained net into the zoo, or store a run's small files (for those who publish this package).

python -m keras_resnet.commands.publish experiments/resnet56-fast/seed-*
python -m keras_resnet.commands.publish RUN --results results/resnet20-fast/seed-0

Of several runs of a net, the one with the lowest validation error is taken; the others need no model.keras.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from keras_resnet import console
from keras_resnet.commands import flags, startup, terminal
from keras_resnet.errors import UserError
from keras_resnet.runs import files
from keras_resnet.zoo.registry import WEIGHTS


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        prog="python -m keras_resnet.commands.publish",
        description=__doc__,
        formatter_class=flags.HelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder of the net")
    parser.add_argument(
        "--output",
        type=Path,
        default=WEIGHTS,
        metavar="DIR",
        help="folder of the registry (default: in the package)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="only store the small files of one run there, e.g. results/x/seed-0",
    )
    arguments = parser.parse_args(argv)
    # Beside the run folders seed-* there are a sweep's logs and runs that were moved aside.
    runs = [
        run for run in arguments.runs if run.is_dir() and not files.MOVED_ASIDE.search(run.name)
    ] or arguments.runs
    if arguments.results and len(runs) > 1:
        raise UserError(f"--results stores one run. Received: {len(runs)}")
    startup.start_keras()
    from keras_resnet.zoo.publish import pack, store_results

    if arguments.results:
        store_results(runs[0], arguments.results)
        console.print_line(f"wrote {arguments.results}")
        return 0
    entry = pack(runs, arguments.output)
    file = arguments.output / entry.file
    console.print_line(
        f"wrote {file.parent}: {entry.name}, recipe {entry.recipe}, seed {entry.seed}, validation error "
        f"{entry.val_error:.2f} %, the lowest of {len(entry.candidates)}; model.keras "
        f"{file.stat().st_size / 2**20:.2f} MiB, its card and its entry"
    )
    return 0


if __name__ == "__main__":
    sys.exit(terminal.run(main))
