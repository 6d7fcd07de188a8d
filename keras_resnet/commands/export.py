"""Export a trained net as SavedModel, ONNX or LiteRT files that are verified against Keras, or as a page.

    python export.py experiments/resnet20/seed-0             SavedModel, ONNX
    python export.py experiments/resnet20/seed-0 --quantize  and int8
    python export.py experiments/resnet20/seed-0 --formats web --serve  a page

int8 is calibrated on training images. The page is shown on this machine.

Exit code 4: a file did not compute what Keras computes; nothing was left under its final name.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.errors import UserError
from keras_resnet.export import choices
from keras_resnet.export.web_server import Server
from keras_resnet.inference import zoo

PORT = 8000
_EXPECTED = "a run folder or a .keras file of ours"


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        prog=flags.program("export"),
        description=__doc__,
        formatter_class=flags.HelpFormatter,
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        help=f"{_EXPECTED}, or a trained net by a name that `keras-resnet models` lists; a file or folder of "
        "that name in the working directory comes first",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="default: <run>/export, <stem>-export beside a file, or <name>-export here for a trained net",
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=choices.FORMATS,
        default=choices.DEFAULT_FORMATS,
        help=f"default: {' '.join(choices.DEFAULT_FORMATS)}",
    )
    parser.add_argument(
        "--quantize",
        action="store_true",
        help="also model.int8.onnx, calibrated on training images",
    )
    parser.add_argument(
        "--opset",
        type=int,
        default=choices.OPSET,
        help=f"of ONNX, {choices.OPSETS[0]} to {choices.OPSETS[-1]} (default: %(default)s)",
    )
    parser.add_argument("--dataset", help="the net's data set (default: as it was trained)")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of tensorflow_datasets (default: the run's where it is here, else "
        "$TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--runtime",
        metavar="DIR",
        help="for web: the npm package onnxruntime-web, unpacked; copied beside the page, which then "
        "needs no network (default: the page loads it from a CDN)",
    )
    parser.add_argument(
        "--serve",
        nargs="?",
        type=int,
        const=PORT,
        metavar="PORT",
        help=f"then serve the page on 127.0.0.1 until Ctrl-C (default: {PORT})",
    )
    arguments = parser.parse_args(argv)
    if arguments.serve is None:
        _export(arguments)
        return 0
    if choices.WEB not in arguments.formats:
        raise UserError("`serve` shows the page: add web to `formats`")
    with Server(arguments.serve) as server:  # before the work: the port may be taken
        folder = _export(arguments) / choices.WEB
        console.print_line(f"serving {folder} at {server.url} until Ctrl-C")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve(folder)
    return 0


def _export(arguments: argparse.Namespace) -> Path:
    path, output = Path(arguments.path), arguments.output
    if entry := zoo.find(arguments.path, expected=_EXPECTED):
        path, output = zoo.folder(entry), output or f"{entry.name}-export"
    startup.start_keras(needs="tensorflow")
    from keras_resnet.export.pipeline import export, output_folder

    export(
        path,
        output,
        arguments.formats,
        quantize=arguments.quantize,
        opset=arguments.opset,
        dataset=arguments.dataset,
        data_dir=arguments.data_dir,
        runtime=arguments.runtime,
    )
    return output_folder(path, output)
