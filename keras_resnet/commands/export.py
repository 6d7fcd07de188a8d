"""Export a trained net as SavedModel, ONNX or LiteRT files that are verified against Keras.

    python export.py experiments/resnet20/seed-0               SavedModel and ONNX
    python export.py experiments/resnet20/seed-0 --quantize    and int8 (uses training images)

Exit code 4: a file did not compute what Keras computes; nothing was left under its final name.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from keras_resnet.commands import flags, startup

FORMATS = ("saved_model", "onnx", "litert")


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        prog=flags.program("export"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", metavar="PATH", help="run folder, or .keras file of ours")
    parser.add_argument("--output", metavar="DIR", help="default: <run>/export, or <stem>-export")
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=FORMATS,
        default=FORMATS[:2],
        help="default: saved_model onnx",
    )
    parser.add_argument(
        "--quantize",
        action="store_true",
        help="also model.int8.onnx, calibrated on training images",
    )
    parser.add_argument(
        "--opset", type=int, default=17, help="of ONNX, 13 to 18 (default: %(default)s)"
    )
    parser.add_argument("--dataset", help="the net's data set (default: as it was trained)")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of tensorflow_datasets (default: the run's where it is here, else "
        "$TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )
    arguments = parser.parse_args(argv)
    startup.start_keras(needs="tensorflow")
    from keras_resnet.export.pipeline import export

    export(
        arguments.path,
        arguments.output,
        arguments.formats,
        quantize=arguments.quantize,
        opset=arguments.opset,
        dataset=arguments.dataset,
        data_dir=arguments.data_dir,
    )
    return 0
