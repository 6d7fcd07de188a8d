"""sweep/child.py for tests: with a small synthetic data set, and a record of every update.

What the environment says is done: TF_SWEEP_TRACE is a file to which a line `seed pid update seconds` is
appended after each update; TF_SWEEP_PAUSE are seconds to sleep then; TF_SWEEP_DIVERGE is a seed whose loss
is NaN from update 5 on. Names begin with TF_, so a sweep hands them on to other nodes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.argv[0] = "keras-resnet"  # `import keras_resnet` then leaves TensorFlow to the command
from keras_resnet.data import synthetic
from keras_resnet.sweep import child

synthetic.SYNTHETIC_SIZES = (1_000, 200)


def trace() -> None:
    from keras_resnet.training.callback import RunCallback

    original = RunCallback.on_train_batch_end

    def traced(self: RunCallback, batch: int, logs: dict[str, Any]) -> None:
        seed = self.folder.path.name.removeprefix("seed-")
        if seed == os.environ.get("TF_SWEEP_DIVERGE") and self.step >= 4:
            logs = {**logs, "loss": float("nan")}
        original(self, batch, logs)
        if file := os.environ.get("TF_SWEEP_TRACE"):
            with open(file, "a") as lines:
                lines.write(f"{seed} {os.getpid()} {self.step} {time.time()}\n")
        time.sleep(float(os.environ.get("TF_SWEEP_PAUSE", 0)))

    RunCallback.on_train_batch_end = traced


if __name__ == "__main__":
    from keras_resnet.commands import startup

    start = startup.start_keras
    # Once Keras has started as the command starts it, and not before.
    startup.start_keras = lambda **options: (start(**options), trace())[0]
    child.main()
