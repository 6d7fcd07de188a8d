"""`keras_resnet.train`, with everything that it does, on the Keras backend of this process."""

import json
from pathlib import Path
from typing import Any

import keras

import keras_resnet
from benchmarks.worker import Turns

NEVER = 64_000  # updates: the end of the run, its first validation and its first checkpoint


def run(spec: dict[str, Any], turns: Turns) -> None:
    """Train with the spec's `depth`, `batch_size`, `dataset`, `data_dir`, `precision` and `recipe`.

    With `stock` true, Keras's own BatchNormalization takes the place of ours.
    """

    class Ticks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            turns.count_update()

    fit = keras.Model.fit

    def fit_in_turns(model: Any, *args: Any, callbacks: Any = (), **options: Any) -> Any:
        config = json.loads((Path(spec["folder"]) / "run/seed-0/config.json").read_text())
        turns.facts |= {key: config[key] for key in ("precision", "versions", "git_commit")}
        return fit(model, *args, callbacks=[*callbacks, Ticks()], **options)

    # `train` hands a user's callbacks one call per evaluation; turns need one call per update.
    keras.Model.fit = fit_in_turns
    if spec.get("stock"):
        from keras_resnet.nets import resnet

        resnet.BatchNormalization = keras.layers.BatchNormalization  # type: ignore[misc]
    options = ("depth", "batch_size", "dataset", "data_dir", "precision", "recipe")
    keras_resnet.train(
        keras_resnet.TrainConfig(
            **{name: spec[name] for name in options if name in spec},
            # A small rate without warm-up: an update takes as long, and nothing diverges.
            learning_rate=0.01,
            warmup_steps=0,
            steps=NEVER,
            eval_every=NEVER,
            checkpoint_every=NEVER,
            output_dir=spec["folder"],
            name="run",
        )
    )
