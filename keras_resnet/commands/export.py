"""Export a trained net as SavedModel, ONNX or LiteRT files that are verified against Keras, or as a page.

    python export.py experiments/resnet20/seed-0             SavedModel, ONNX
    python export.py experiments/resnet20/seed-0 --quantize  and int8
    python export.py experiments/resnet20/seed-0 --formats web --serve  a page

int8 is calibrated on training images. The page is shown on this machine.

Exit code 4: a file did not compute what Keras computes, and no export was written.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.errors import UserError
from keras_resnet.export.formats import DEFAULT_FORMATS, FILES, OPSET, OPSETS, WEB
from keras_resnet.export.web_server import Server
from keras_resnet.inference import zoo

PORT = 8000


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.serve is None:
        _export(arguments)
        return 0
    if WEB not in arguments.formats:
        raise UserError("`serve` shows the page: add web to `formats`")
    with Server(arguments.serve) as server:  # before the work: the port may be taken
        folder = _export(arguments) / FILES[WEB]
        console.print_line(f"serving {folder} at {server.url} until Ctrl-C")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve(folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = flags.ArgumentParser(
        prog=flags.program("export"),
        description=__doc__,
        formatter_class=flags.HelpFormatter,
    )
    add = parser.add_argument
    add(
        "path",
        metavar="PATH",
        help="a run folder, a .keras file, or the name of a trained net that `keras-resnet models` lists; a "
        "file or folder of that name in the working directory comes first",
    )
    add(
        "--output",
        metavar="DIR",
        help="default: <run>/export, <stem>-export beside a file, or <name>-export here for a trained net",
    )
    default = " ".join(DEFAULT_FORMATS)
    add("--formats", nargs="+", choices=FILES, default=DEFAULT_FORMATS, help=f"default: {default}")
    text = "also model.int8.onnx, calibrated on training images"
    add("--quantize", action="store_true", help=text)
    text = f"of ONNX, {OPSETS[0]} to {OPSETS[-1]} (default: %(default)s)"
    add("--opset", type=int, default=OPSET, help=text)
    add("--dataset", help="the net's data set (default: the one it was trained on)")
    add(
        "--data-dir",
        metavar="DIR",
        help="folder of tensorflow_datasets (default: the run's if it exists here, else $TFDS_DATA_DIR, "
        "else ~/tensorflow_datasets)",
    )
    add(
        "--runtime",
        metavar="DIR",
        help="for web: the npm package onnxruntime-web, unpacked; copied beside the page, which then "
        "needs no network (default: the page loads it from a CDN)",
    )
    text = f"then serve the page on 127.0.0.1 until Ctrl-C (default: {PORT})"
    add("--serve", nargs="?", type=int, const=PORT, metavar="PORT", help=text)
    return parser


def _export(arguments: argparse.Namespace) -> Path:
    """Export, and return the folder that was written."""
    zoo.resolve(arguments.path)  # a wrong name ends here, before Keras is imported
    startup.start_keras(needs="tensorflow")
    from keras_resnet.export.pipeline import export, output_folder

    export(**{key: value for key, value in vars(arguments).items() if key != "serve"})
    return output_folder(arguments.path, arguments.output)
