"""`keras-resnet models`: print the summary of a net."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.errors import UserError
from keras_resnet.nets.family import MODELS, SHORTCUTS

_WIDTH = 100  # columns of the table, where the terminal has as many


def main(argv: Sequence[str] | None = None) -> int:
    """`keras-resnet models`: print the summary of a net."""
    parser = flags.ArgumentParser(prog="keras-resnet models", description=main.__doc__)
    parser.add_argument("--model", choices=MODELS, default="resnet")
    parser.add_argument("--depth", type=int, default=20, help="6n+2 (default: %(default)s)")
    parser.add_argument("--shortcut", choices=SHORTCUTS, default="zeropad")
    arguments = parser.parse_args(argv)
    if arguments.model == "plain" and arguments.shortcut != "zeropad":
        raise UserError("--shortcut must be left out for --model plain, which has none")
    startup.start_keras()
    from keras_resnet.nets.resnet import BUILDERS

    options = {"shortcut": arguments.shortcut} if arguments.model == "resnet" else {}
    try:
        net = BUILDERS[arguments.model](arguments.depth, **options)
    except ValueError as error:
        raise UserError(str(error)) from None
    width = min(console.width() or _WIDTH, _WIDTH)
    os.environ["COLUMNS"] = str(
        width
    )  # else Keras cuts the table at what it takes for the terminal
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        net.summary(line_length=width)
    console.print_result(text.getvalue().rstrip())
    return 0
