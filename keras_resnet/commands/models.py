"""List the trained nets that come with the package, or print any net's layers.

    keras-resnet models
    keras-resnet models --depth 56

The names are those that --model of the other commands takes.
"""

import os
import shutil
from collections.abc import Sequence

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.errors import UserError
from keras_resnet.inference import zoo
from keras_resnet.nets.family import MODELS, SHORTCUTS


def main(argv: Sequence[str] | None = None) -> int:
    usage = "%(prog)s [flags]"
    parser = flags.ArgumentParser(prog="keras-resnet models", usage=usage, description=__doc__)
    parser.add_argument("--depth", type=int, help="6n+2: print the layers of this net")
    parser.add_argument("--model", choices=MODELS, help="(default: resnet)")
    parser.add_argument("--shortcut", choices=SHORTCUTS, help="(default: zeropad)")
    arguments = parser.parse_args(argv)
    if not any(vars(arguments).values()):
        console.print_result(_table())
        return 0
    if arguments.depth is None:
        raise UserError("--model and --shortcut say whose layers are printed: add --depth")
    startup.start_keras()
    from keras_resnet.nets.resnet import build

    options = {key: value for key, value in vars(arguments).items() if value is not None}
    try:
        net = build(**{"model": "resnet", **options})
    except ValueError as error:
        raise UserError(str(error)) from None
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    os.environ["COLUMNS"] = str(width)  # else Keras cuts the table at the terminal's width
    net.summary(line_length=width, print_fn=console.print_result)
    return 0


def _table() -> str:
    """The trained nets, one line per net, in at most 80 columns."""
    lines = ["name       parameters  dataset  recipe    updates  seed  val. %  test %  commit"]
    for net in zoo.entries():
        lines.append(
            f"{net.name:<9}  {net.parameters:10,}  {net.dataset:<7}  {net.recipe:<8}  {net.steps:7,}  "
            f"{net.seed:4}  {net.val_error:6.2f}  {net.test_error:6.2f}  {net.commit[:7]}"
        )
    lines += ["", "predict and evaluate take a name with --model, export takes it as PATH."]
    return "\n".join(lines)
