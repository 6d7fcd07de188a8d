"""`keras-resnet` with a small data set and a record of every update.

    python small_data.py sweep FLAGS    a sweep whose runs are the next command
    python small_data.py train FLAGS    what the worker of a sweep starts; it ends with its stdin

TF_SWEEP_TRACE names a file that gets a line `seed pid update` after each update; TF_SWEEP_PAUSE are
seconds to sleep then; TF_SWEEP_DIVERGE is a seed whose weights are NaN from update 5 on.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def record_updates(seed):
    """Let every `fit` of Keras record its updates."""
    import keras

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations.value))
            if seed == os.environ.get("TF_SWEEP_DIVERGE") and step == 5:
                weights = self.model.trainable_variables[0]
                weights.assign(keras.ops.full(weights.shape, float("nan")))
            if path := os.environ.get("TF_SWEEP_TRACE"):
                with open(path, "a") as file:
                    file.write(f"{seed} {os.getpid()} {step}\n")
            time.sleep(float(os.environ.get("TF_SWEEP_PAUSE", 0)))

    fit = keras.Model.fit

    def recording_fit(self, *arguments, callbacks=(), **options):
        return fit(self, *arguments, callbacks=[Record(), *callbacks], **options)

    keras.Model.fit = recording_fit


if __name__ == "__main__":
    if sys.argv[1] == "sweep":
        from keras_resnet.__main__ import entry_point
        from keras_resnet.commands import sweep

        sweep.COMMAND = (__file__, "train")
        sys.exit(entry_point())
    from keras_resnet.data import synthetic
    from keras_resnet.sweep import task

    synthetic.SYNTHETIC_SIZES = (1_000, 200)
    seeds = [word.partition("=")[2] for word in sys.argv if word.startswith("--seed=")]
    record_updates(seeds[0] if seeds else "0")
    task.run_command()
