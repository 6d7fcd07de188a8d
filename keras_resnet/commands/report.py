"""`keras-resnet report`: figure 6, the table of results and a page from run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.errors import missing
from keras_resnet.report.rows import find_runs


def main(argv: Sequence[str] | None = None) -> int:
    """Write figure 6, the results table and a page from run folders."""
    parser = flags.ArgumentParser(prog="keras-resnet report", description=main.__doc__)
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="folders with runs, e.g. experiments/"
    )
    parser.add_argument(
        "--output", default="report", metavar="DIR", help="folder to write (default: %(default)s)"
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of tensorflow_datasets, for the wrongly classified images "
        "(default: the run's, else $TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )
    arguments = parser.parse_args(argv)
    # Before Keras, which takes seconds to start:
    find_runs(arguments.paths)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise missing("matplotlib", "the report") from None
    startup.start_keras()
    from keras_resnet.report.build import build

    console.print_line(
        f"written: {build(arguments.paths, Path(arguments.output), arguments.data_dir)}"
    )
    return 0
