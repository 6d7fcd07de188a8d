"""Train a net, from a checkout: `python train.py --depth 56`. The same as `keras-resnet train --depth 56`."""

import sys

from keras_resnet.commands import terminal
from keras_resnet.commands.train import main

if __name__ == "__main__":
    sys.exit(terminal.run(main))
