"""What happens in a run: build, compile, `fit`, evaluate, save; and the seeds one after the other.

One `fit` is the whole run: an epoch means nothing here, all counts are updates. What must happen between
updates (validation, metrics, checkpoints, signals) is done by one callback. Everything random is a
function of (seed, step) or is in the checkpoint, so a run that was killed ends with the same bits as one
that was not (CPU; a GPU's kernels may add in another order).
"""

from __future__ import annotations

import itertools
import math
import resource
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_resnet import cli, datasets, environment, recipes, resuming, runs
from keras_resnet.cli import UserError
from keras_resnet.config import TrainConfig
from keras_resnet.layers import RandomPadCrop
from keras_resnet.loop import (
    Diverged,
    Interrupted,
    RunCallback,
    Signals,
    duration,
    evaluate,
    logits_of,
)
from keras_resnet.models import BUILDERS
from keras_resnet.optimizers import SGD
from keras_resnet.recipes import schedule_of

DIVERGED = 3  # exit code
# Batches that the stream makes at a time: a call of Python for each one costs 2 % of the speed.
CHUNK = 32


def build_net(config: TrainConfig, data: datasets.Dataset, seed: int, dtype: str) -> keras.Model:
    """The net of a run; see `keras_resnet.resnet`."""
    options: dict[str, Any] = {"shortcut": config.shortcut} if config.model == "resnet" else {}
    return BUILDERS[config.model](
        config.depth,
        num_classes=len(data.class_names),
        mean=data.mean,
        std=data.std,
        seed=seed,
        dtype=dtype,
        **options,
    )


class _ResidentImages(keras.layers.Layer):
    """Indices `(N,)` -> images `(N, H, W, C)` uint8, from a data set that lives on the device."""

    def __init__(self, images: np.ndarray, **kwargs: Any):
        super().__init__(**kwargs)
        self._images = tf.constant(images)

    def call(self, indices: Any) -> Any:
        return ops.take(self._images, indices, axis=0)


def training_model(
    config: TrainConfig, data: datasets.Dataset, net: keras.Model, seed: int, start: int = 0
) -> keras.Model:
    """indices -> images -> augmentation -> logits, compiled with the run's recipe.

    `start` is the number of updates that were made already, in an earlier session.
    """
    crop_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    model = keras.Sequential(
        [
            keras.Input((), dtype="int32", name="index"),
            _ResidentImages(data.train_images, name="images"),
            RandomPadCrop(4, fill=data.mean, flip=True, seed=crop_seed, dtype="float32"),
            logits_of(net),
        ]
    )
    recipe = config.resolved_recipe
    optimizer: keras.optimizers.Optimizer = SGD(
        schedule_of(recipe), recipe.momentum, recipe.weight_decay, nesterov=recipe.nesterov
    )
    if net.get_layer("stem_conv").compute_dtype == "float16":
        # Gradients below 6e-8 vanish in float16. A step whose scaled gradients overflow is skipped: it
        # counts as an update of the run, but does not advance `optimizer.iterations`.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    gpu = environment.device()[0] == "GPU"
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        # XLA pays on a GPU (not measured here) and costs on a CPU.
        jit_compile=gpu,
        # Fewer returns to Python; on a CPU an update takes so long that it makes no difference.
        steps_per_execution=_divisor(config, start) if gpu else 1,
    )
    # Keras would build slots and metrics at the first update; a resume fills them before it.
    optimizer.build(model.trainable_variables)
    model.compute_metrics(None, ops.zeros((1,)), ops.zeros((1, len(data.class_names))))
    model.reset_metrics()
    return model


def _divisor(config: TrainConfig, start: int) -> int:
    """The most updates, at most 50, that divide every interval a run counts in, from `start` on."""
    common = math.gcd(
        config.resolved_recipe.steps, config.eval_every, config.checkpoint_every, start
    )
    return max(k for k in range(1, 51) if common % k == 0)


def stream(
    config: TrainConfig, labels: np.ndarray, train: np.ndarray, seed: int, start: int
) -> tf.data.Dataset:
    """Endless (index, label) batches, int32, from update `start` on; see `datasets.batch_indices`."""

    batch_size = config.resolved_recipe.batch_size

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in itertools.count(start, CHUNK):
            steps = range(first, first + CHUNK)
            index = train[[datasets.batch_indices(seed, k, len(train), batch_size) for k in steps]]
            yield index.astype(np.int32), labels[index]

    spec = tf.TensorSpec((CHUNK, batch_size), tf.int32)
    chunked = tf.data.Dataset.from_generator(chunks, output_signature=(spec, spec))
    return chunked.unbatch().prefetch(8)


def train(config: TrainConfig, restart: bool = False, data: datasets.Dataset | None = None) -> Path:
    """Train `config.runs` seeds one after the other; finished ones are not repeated.

    Args:
        config: the settings.
        restart: move what is in the run folders aside and start over.
        data: the data set, where it is loaded already.

    Returns:
        The experiment's folder, with a run folder a seed and summary.json.

    Raises:
        UserError: for everything the user can mend, and (exit code 3) for a loss that became NaN.
        Interrupted: on SIGINT and SIGTERM, after a checkpoint.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            "training needs Keras's tensorflow backend. "
            f"Received: {keras.backend.backend()}; set KERAS_BACKEND=tensorflow"
        )
    experiment = Path(config.output_dir) / config.experiment
    folders = {
        seed: experiment / f"seed-{seed}" for seed in range(config.seed, config.seed + config.runs)
    }
    # What is wrong is told before the first seed trains, not after hours, at the second.
    unfinished = list(folders.values())
    if not restart:
        for folder in folders.values():
            resuming.settle(config, folder)
        unfinished = [folder for folder in unfinished if resuming.results(folder) is None]
    if unfinished:
        data = data or datasets.load(config.dataset, config.data_dir)
        _check_sizes(config, data)
    if restart:
        for folder in filter(runs.exists, unfinished):
            with runs.lock(folder):
                cli.tell(f"moved the run that was in {folder} to {runs.move_aside(folder)}")
    for seed, folder in folders.items():
        received = 0
        if folder in unfinished:
            assert data is not None
            runs.make_folder(folder)
            with runs.lock(folder):
                runs.remove_leftovers(folder)
                # Again, with the lock: another process may have been here since the first look.
                precision, reason = resuming.settle(config, folder)
                if resuming.results(folder) is None:
                    received = _train_seed(config, data, seed, folder, precision, reason)
        elif results := resuming.results(folder):
            cli.tell(
                f"{folder} is finished: test error {results['test_error']:.2f} % after "
                f"{results['steps']:,} updates (--restart would train it again)"
            )
        resuming.summarize(experiment, folder)
        if received:
            raise Interrupted(received, config.resolved_recipe.steps)
        keras.backend.clear_session()
    return experiment


def _check_sizes(config: TrainConfig, data: datasets.Dataset) -> None:
    train, _ = datasets.split(len(data.train_labels), config.val_size, config.seed)
    batch_size = config.resolved_recipe.batch_size
    if len(train) < batch_size:
        raise UserError(
            f"--batch-size must be at most the {len(train)} training images. Received: {batch_size}"
        )


def _train_seed(
    config: TrainConfig,
    data: datasets.Dataset,
    seed: int,
    folder: Path,
    precision: str,
    reason: str,
) -> int:
    """Train one seed to its end; returns a signal that came too late to interrupt it, or 0."""
    recipe = config.resolved_recipe
    kind, device = environment.device()
    train, validation = datasets.split(len(data.train_labels), config.val_size, seed)
    if runs.exists(folder / "config.json"):
        resuming.say_what_changed(folder)
    else:
        runs.write_json(
            folder / "config.json",
            {
                "settings": {**config.settings(), "seed": seed},
                "precision": precision,
                "class_names": data.class_names,
                "versions": environment.versions(),
                "git_commit": environment.git_commit(),
                "device": {"kind": kind, "name": device},
                "onednn": environment.onednn(),
                "command": shlex.join(["python", *sys.argv]),
            },
        )
    found, problems = runs.newest_checkpoint(folder)
    problems += resuming.missing_checkpoints(folder, found)
    for problem in problems:
        print(f"warning: {problem}; going on from the one before it", file=sys.stderr)
    net = build_net(config, data, seed, precision)
    model = training_model(config, data, net, seed, start=found[1]["step"] if found else 0)
    parameters = int(sum(np.prod(v.shape) for v in net.trainable_variables))
    cli.tell(f"{config.experiment}, seed {seed}: {parameters:,} parameters; run folder {folder}")
    cli.tell(f"device: {kind} ({device}); precision: {precision} ({reason})")
    if slow := environment.emulation(precision):
        cli.tell(f"note: {precision} may be much slower than float32 here: {slow}")
    cli.tell(f"recipe: {recipes.describe_changes(recipe, config.depth)}")
    with Signals() as signals:
        run = RunCallback(
            config,
            folder,
            net,
            (data.train_images[validation], data.train_labels[validation]),
            signals,
        )
        if found is not None:
            run.restore(*found)
            cli.tell(f"resuming at update {run.step:,} of {recipe.steps:,}")
            if run.step == recipe.steps:  # all that is missing is the end
                run.set_model(model)
                run.assign()
        run.write_metrics()  # rows that a killed process wrote after the checkpoint come again
        try:
            if run.step < recipe.steps:
                batches = stream(config, data.train_labels, train, seed, run.step)
                updates = recipe.steps - run.step
                model.fit(
                    batches, steps_per_epoch=updates, callbacks=[run], shuffle=False, verbose=0
                )
        except Diverged as diverged:
            raise UserError(
                f"the loss became NaN or infinite at update {diverged.step}: training has diverged. "
                "Try --restart with a smaller --learning-rate or with --warmup-steps",
                exit_code=DIVERGED,
            ) from None
        finally:
            run.close()
        assert run.step == recipe.steps
        _finish(config, data, seed, folder, precision, run, parameters)
        return signals.received


def _finish(
    config: TrainConfig,
    data: datasets.Dataset,
    seed: int,
    folder: Path,
    precision: str,
    run: RunCallback,
    parameters: int,
) -> None:
    """The test error, once; the float32 net; results.json last, because it says "finished"."""
    net = build_net(config, data, seed, "float32")
    net.set_weights(run.net.get_weights())
    test_loss, test_error = evaluate(logits_of(net), data.test_images, data.test_labels)
    with runs.atomic(folder / "model.keras") as temporary:
        net.save(temporary)
    last = run.rows[-1]
    kind, device = environment.device()
    images = run.timed * run.recipe.batch_size
    runs.write_json(
        folder / "results.json",
        {
            "test_error": round(test_error, 4),
            "test_loss": test_loss,
            "val_error": last["val_error"],
            "train_error": last["train_error"],
            "steps": run.recipe.steps,
            "recipe": config.recipe,
            "seconds": round(run.seconds, 1),
            "images_per_second": round(images / run.seconds, 1) if run.seconds else None,
            "parameters": parameters,
            "model": config.model,
            "depth": config.depth,
            "shortcut": config.shortcut if config.model == "resnet" else None,
            "dataset": config.dataset,
            "seed": seed,
            "precision": precision,
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "device": {"kind": kind, "name": device},
            "versions": environment.versions(),
            "git_commit": environment.git_commit(),
        },
    )
    cli.tell(
        f"test error {test_error:.2f} % after {run.recipe.steps:,} updates in "
        f"{duration(run.seconds)}; saved {folder / 'model.keras'}"
    )
