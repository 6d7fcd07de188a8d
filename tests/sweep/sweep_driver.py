"""Run `keras-resnet sweep` in this process with small_child.py in the place of sweep/child.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.argv[0] = "keras-resnet"  # `import keras_resnet` then leaves TensorFlow to the command

from keras_resnet.commands import sweep, terminal

sweep.CHILD = (str(Path(__file__).with_name("small_child.py")), "train")

if __name__ == "__main__":
    sys.exit(terminal.run(lambda: sweep.main(sys.argv[1:])))
