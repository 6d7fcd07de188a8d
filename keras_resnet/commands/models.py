"""List the trained nets that come with the package, or print the layers of any net.

keras-resnet models
keras-resnet models --depth 56
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.errors import UserError
from keras_resnet.inference import zoo
from keras_resnet.nets.family import MODELS, SHORTCUTS

_WIDTH = 100  # columns of the layers' table, unless the terminal has fewer


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        prog="keras-resnet models", description=__doc__, formatter_class=flags.HelpFormatter
    )
    parser.add_argument("--depth", type=int, help="6n+2: print the layers of this net")
    parser.add_argument("--model", choices=MODELS, help="(default: resnet)")
    parser.add_argument("--shortcut", choices=SHORTCUTS, help="(default: zeropad)")
    arguments = parser.parse_args(argv)
    if arguments.depth is None:
        if arguments.model or arguments.shortcut:
            raise UserError("--model and --shortcut say whose layers are printed: add --depth")
        console.print_result(_table(zoo.entries()))
        return 0
    if arguments.model == "plain" and arguments.shortcut:
        raise UserError("--shortcut must be left out for --model plain, which has none")
    startup.start_keras()
    from keras_resnet.nets.resnet import build

    try:
        net = build(
            arguments.model or "resnet",
            arguments.depth,
            shortcut=arguments.shortcut or "zeropad",
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    width = min(console.width() or _WIDTH, _WIDTH)
    os.environ["COLUMNS"] = str(width)  # else Keras cuts the table at the terminal's width
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        net.summary(line_length=width)
    console.print_result(text.getvalue().rstrip())
    return 0


def _table(nets: Sequence[zoo.Entry]) -> str:
    """The trained nets, a line per net, in at most 80 columns."""
    lines = ["name       parameters  dataset  recipe    updates  seed  val. %  test %  commit"]
    for net in nets:
        lines.append(
            f"{net.name:<9}  {net.parameters:10,}  {net.dataset:<7}  {net.recipe:<8}  {net.steps:7,}  "
            f"{net.seed:4}  {net.val_error:6.2f}  {net.test_error:6.2f}  {net.commit[:7]}"
        )
    return "\n".join(
        [*lines, "", "predict and evaluate take a name with --model, and export as it is."]
    )
