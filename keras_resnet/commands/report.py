"""Write figure 6, the table of results and a page from run folders.

Needs: pip install -e '.[report]'
"""

from collections.abc import Sequence
from pathlib import Path

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.report.build import build
from keras_resnet.report.rows import find_runs


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(prog="keras-resnet report", description=__doc__)
    add = parser.add_argument
    # fmt: off
    add("paths", nargs="+", metavar="PATH", help="folders with runs, e.g. experiments/")
    add("--output", type=Path, default="report", metavar="DIR", help="folder to write (default: %(default)s)")
    add("--data-dir", metavar="DIR",
        help="folder of tensorflow_datasets, for the wrongly classified images "
        "(default: the run's, else $TFDS_DATA_DIR, else ~/tensorflow_datasets)")
    # fmt: on
    arguments = parser.parse_args(argv)
    folders = find_runs(arguments.paths)  # before Keras, which takes seconds to start
    import matplotlib  # noqa: F401  likewise

    startup.start_keras()
    written = build(folders, arguments.output.expanduser(), arguments.data_dir)
    console.print_line(f"wrote {written}")
    return 0
