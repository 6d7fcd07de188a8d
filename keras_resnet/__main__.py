"""`keras-resnet`, and `python -m keras_resnet`: one command, whose subcommands are in `commands/`."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from keras_resnet import console
from keras_resnet._version import __version__
from keras_resnet.commands import flags, terminal
from keras_resnet.errors import did_you_mean

COMMANDS = {
    "train": "train a net, or resume a run",
    "sweep": "train many runs, several at once, here or on a Ray cluster",
    "export": "write a trained net as SavedModel and ONNX, compared with Keras",
    "predict": "classify image files",
    "evaluate": "measure a net's error on a data set",
    "convert": "convert a PyTorch checkpoint to a .keras file",
    "report": "draw figure 6, a table and a page from run folders",
    "models": "list the trained nets that come with the package",
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = flags.ArgumentParser(
        prog="keras-resnet",
        usage="keras-resnet COMMAND [flags]",
        description="The CIFAR ResNets of He et al. 2015: train, evaluate, export, use.\n\ncommands:\n"
        + "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items()),
        epilog="`keras-resnet COMMAND --help` shows a command's flags.",
    )
    parser.add_argument("--version", action="version", version=f"keras-resnet {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    command = parser.parse_args(arguments[:1]).command
    if command is None:
        console.print_result(parser.format_help().rstrip())
        return 0
    if command not in COMMANDS:
        parser.error(f"{command} is not a command" + did_you_mean(command, COMMANDS))
    return importlib.import_module(f"keras_resnet.commands.{command}").main(arguments[1:])


def entry_point() -> int:
    """What `pip install` puts on the PATH."""
    return terminal.run(main)


if __name__ == "__main__":
    sys.exit(entry_point())
