"""Export a trained net, from a checkout: `python export.py RUN`. The same as `keras-resnet export RUN`."""

import sys

from keras_resnet.commands import terminal
from keras_resnet.commands.export import main

if __name__ == "__main__":
    sys.exit(terminal.run(main))
