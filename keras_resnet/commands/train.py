"""Train a CIFAR network of He et al. 2015 with the paper's recipe, or a faster one.

    python train.py --depth 56                       the paper's ResNet-56
    python train.py --depth 56 --recipe fast         in a sixth of its updates
    python train.py --dataset synthetic --steps 500  no data needed

The same command again resumes an interrupted run, and leaves a finished one alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.data.constants import VAL_SIZE
from keras_resnet.recipes import FAST, PAPER, RECIPES, describe_difference
from keras_resnet.runs.config import TrainConfig
from keras_resnet.training.signals import Interrupted, signal_name

# Updates that see each of the 45,000 training images once.
EPOCH = -(-(50_000 - VAL_SIZE) // PAPER.batch_size)
HINTS = {
    "epochs": lambda n: (
        f"1 epoch = {EPOCH} updates, so give --steps {int(n) * EPOCH if n.isdecimal() else 'UPDATES'}"
    ),
    "lr": lambda value: f"give --learning-rate {value}".rstrip(),
    "resume": lambda value: "the same command again resumes an interrupted run",
    "n": lambda n: f"give --depth {6 * int(n) + 2 if n.isdecimal() else '6n+2'}",
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    # So that --help shows the numbers of the recipe that is asked for; a wrong name is an error later.
    asked = flags.ArgumentParser(add_help=False)
    asked.add_argument("--recipe", nargs="?")
    recipe = RECIPES.get(asked.parse_known_args(arguments)[0].recipe, PAPER)
    parser = flags.ArgumentParser(
        prog=flags.program("train"),
        usage="%(prog)s [flags]",
        description=__doc__,
        epilog=f"Defaults are those of recipe {recipe.name} at {TrainConfig.depth} layers. "
        f"fast differs from paper in: {describe_difference(FAST.differences(PAPER))}.",
        hints={**HINTS, "epoch": HINTS["epochs"]},
    )
    flags.add_flags(parser, TrainConfig, shown=recipe.resolve(TrainConfig.depth).settings())
    parser.add_argument(
        "--restart", action="store_true", help="move an existing run aside and start over"
    )
    parsed = parser.parse_args(arguments)
    config = flags.settings_from(parsed, TrainConfig)
    console.print_status(f"starting {startup.configured_backend()}")
    startup.start_keras()
    from keras_resnet.training.trainer import train

    try:
        train(config, restart=parsed.restart)
    except Interrupted as stop:
        again = "the same command without --restart" if parsed.restart else "the same command"
        console.print_error(
            f"stopped by {signal_name(stop.signum)} at update {stop.step:,}: checkpoint saved, "
            f"{again} resumes"
        )
        return 128 + stop.signum
    return 0
