"""Train a CIFAR network of He et al. 2015 with the paper's recipe, or a faster one.

    python train.py --depth 56                       the paper's ResNet-56
    python train.py --depth 56 --recipe fast         in 16,000 updates
    python train.py --dataset synthetic --steps 500  no data needed

The same command again resumes an interrupted run, and leaves a finished one alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from keras_resnet import console
from keras_resnet.commands import flags, startup, supervisor
from keras_resnet.recipes import FAST, PAPER, RECIPES, Recipe, describe_difference
from keras_resnet.runs.config import TrainConfig
from keras_resnet.training import hosts


def main(argv: Sequence[str] | None = None) -> int:
    chosen = _recipe_in(argv)
    parser = flags.ArgumentParser(
        prog=flags.program("train"),
        description=__doc__,
        epilog=f"Defaults are those of recipe {chosen.name} at {TrainConfig.depth} layers. "
        f"fast differs from paper in: {describe_difference(FAST, PAPER)}.",
        formatter_class=flags.HelpFormatter,
    )
    flags.add_flags(parser, TrainConfig, shown=chosen.resolve(TrainConfig.depth).settings())
    parser.add_argument(
        "--restart", action="store_true", help="move an existing run aside and start over"
    )
    arguments = parser.parse_args(argv)
    config = flags.settings_from(arguments, TrainConfig)
    if hosts.are_many() and not supervisor.is_child():
        return supervisor.supervise()
    if supervisor.is_child():
        supervisor.end_with_parent()
    console.print_status(f"starting {startup.configured_backend()}")
    startup.start_keras()
    from keras_resnet.training.signals import Interrupted
    from keras_resnet.training.trainer import train

    try:
        train(config, restart=arguments.restart)
    except Interrupted as stop:
        again = "the same command without --restart" if arguments.restart else "the same command"
        console.print_error(
            f"stopped by signal {stop.signum} at update {stop.step:,}: checkpoint saved, "
            f"{again} resumes"
        )
        return 128 + stop.signum
    except BaseException as error:
        if supervisor.is_child():
            supervisor.leave(error)
        raise
    return 0


def _recipe_in(argv: Sequence[str] | None) -> Recipe:
    """The recipe that is asked for, so that --help shows its numbers; a wrong name is told later."""
    parser = flags.ArgumentParser(add_help=False)
    parser.add_argument("--recipe", nargs="?")
    return RECIPES.get(parser.parse_known_args(argv)[0].recipe, PAPER)
