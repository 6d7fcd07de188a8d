"""Train a CIFAR network of He et al. 2015 with the paper's recipe, or another.

    python train.py --depth 56                       the paper's ResNet-56
    python train.py --depth 56 --recipe fast         in a sixth of its updates
    python train.py --dataset synthetic --steps 500  no data needed

The same command again resumes an interrupted run, and leaves a finished one.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.data.constants import VAL_SIZE
from keras_resnet.errors import UserError
from keras_resnet.recipes import FAST, PAPER, RECIPES, Recipe, describe_difference
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.run import read_settings
from keras_resnet.training.signals import Interrupted, signal_name

# Updates that see each of the 45,000 training images once.
EPOCH = -(-(50_000 - VAL_SIZE) // PAPER.batch_size)
HINTS: dict[str, Callable[[str], str]] = {
    "epochs": lambda n: (
        f"1 epoch of CIFAR = {EPOCH} updates: give --steps {int(n) * EPOCH if n.isdecimal() else 'UPDATES'}"
    ),
    "lr": lambda value: f"give --learning-rate {value}".rstrip(),
    "resume": lambda value: "the same command again resumes an interrupted run",
    "n": lambda n: f"give --depth {6 * int(n) + 2 if n.isdecimal() else '6n+2'}",
}


def asked_recipe(argv: Sequence[str] | None, settings: Mapping[str, Any]) -> tuple[Recipe, int]:
    """The recipe whose numbers --help shows, and the depth; wrong values are an error later."""
    name, layers = flags.peek(argv, "--recipe", "--depth")
    recipe = name or settings.get("recipe")
    recipe = recipe if isinstance(recipe, Recipe) else RECIPES.get(recipe or "", PAPER)
    layers = layers or ""
    depth = int(layers) if layers.isdecimal() else settings.get("depth", TrainConfig.depth)
    return recipe.resolve(depth), depth


def main(argv: Sequence[str] | None = None) -> int:
    config_file, dataset = flags.peek(argv, "--config", "--dataset")
    settings = {} if config_file is None else read_settings(Path(config_file), dataset)
    recipe, depth = asked_recipe(argv, settings)
    usual = (each.resolve(depth).settings() for each in (FAST, PAPER))
    parser = flags.ArgumentParser(
        prog=flags.program("train"),
        usage="%(prog)s [flags]",
        description=__doc__,
        epilog=textwrap.fill(
            f"Defaults are those of recipe {recipe.name} at {depth} layers. "
            f"fast differs from paper (in brackets) in: {describe_difference(*usual)}."
        ),
        hints=HINTS,
    )
    flags.add_flags(parser, recipe.settings())
    text = "settings from a TOML file, or of a run (its folder or config.json); flags win"
    parser.add_argument("--config", metavar="FILE", help=text)
    text = "move an existing run aside and start over"
    parser.add_argument("--restart", action="store_true", help=text)
    parser.set_defaults(**settings)
    given = vars(parser.parse_args(argv))
    restart = given.pop("restart")
    del given["config"]
    try:
        config = TrainConfig(**given)
    except ValueError as error:
        source = f" ({config_file} gives some of the settings)" if config_file else ""
        raise UserError(f"{error}{source}") from None
    console.print_status(f"starting {startup.configured_backend()}")
    startup.start_keras()
    from keras_resnet.training.trainer import train

    try:
        train(config, restart=restart)
    except Interrupted as stop:
        again = "the same command without --restart" if restart else "the same command"
        console.print_error(
            f"stopped by {signal_name(stop.signum)} at update {stop.step:,}: checkpoint saved, "
            f"{again} resumes"
        )
        return 128 + stop.signum
    return 0
