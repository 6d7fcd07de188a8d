"""Train a CIFAR network of He et al. 2015 with the paper's recipe.

    python train.py --depth 56                         the paper's ResNet-56 on CIFAR-10
    python train.py --dataset synthetic --steps 500    no data needed

The same command again resumes an interrupted run, and does nothing for a finished one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from keras_resnet import cli, training
from keras_resnet.config import TrainConfig
from keras_resnet.loop import Interrupted


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_flags(parser, TrainConfig)
    parser.add_argument(
        "--restart", action="store_true", help="move an existing run aside and start over"
    )
    arguments = parser.parse_args(argv)
    config = cli.settings_from(arguments, TrainConfig)
    try:
        training.train(config, restart=arguments.restart)
    except Interrupted as stop:
        again = "the same command without --restart" if arguments.restart else "the same command"
        print(
            f"stopped by signal {stop.signum} at update {stop.step:,}: checkpoint saved, "
            f"{again} resumes",
            file=sys.stderr,
        )
        return 128 + stop.signum
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
