"""What happens in a run: build, compile, `fit`, evaluate, save; and how a run goes on after a stop.

One `fit` is the whole run: an epoch means nothing here, all counts are updates. What must happen between
updates (validation, metrics, checkpoints, signals) is done by one callback. Everything random is a
function of (seed, step) or is in the checkpoint, so a run that was killed ends with the same bits as one
that was not (CPU; a GPU's kernels may add in another order).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import resource
import shlex
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_resnet import datasets, environment, runs
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
from keras_resnet.optimizers import SGD, learning_rate_schedule

DIVERGED = 3  # exit code
# Batches that the stream makes at a time: a call of Python for each one costs 2 % of the speed.
CHUNK = 32
# Settings that may differ when a run is resumed: they do not change its numbers.
PLACES = ("data_dir", "output_dir", "name", "runs", "seed", "checkpoint_every", "precision")


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
    config: TrainConfig, data: datasets.Dataset, net: keras.Model, seed: int
) -> keras.Model:
    """indices -> images -> augmentation -> logits, compiled with the paper's recipe."""
    crop_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    model = keras.Sequential(
        [
            keras.Input((), dtype="int32", name="index"),
            _ResidentImages(data.train_images, name="images"),
            RandomPadCrop(4, fill=data.mean, flip=True, seed=crop_seed, dtype="float32"),
            logits_of(net),
        ]
    )
    schedule = learning_rate_schedule(config.learning_rate, config.steps, config.warmup)
    optimizer: keras.optimizers.Optimizer = SGD(schedule, config.momentum, config.weight_decay)
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
        steps_per_execution=_divisor(config) if gpu else 1,
    )
    # Keras would build slots and metrics at the first update; a resume fills them before it.
    optimizer.build(model.trainable_variables)
    model.compute_metrics(None, ops.zeros((1,)), ops.zeros((1, len(data.class_names))))
    model.reset_metrics()
    return model


def _divisor(config: TrainConfig) -> int:
    """The most updates, at most 50, that divide every interval a run counts in."""
    common = math.gcd(config.steps, config.eval_every, config.checkpoint_every)
    return max(k for k in range(1, 51) if common % k == 0)


def stream(
    config: TrainConfig, labels: np.ndarray, train: np.ndarray, seed: int, start: int
) -> tf.data.Dataset:
    """Endless (index, label) batches, int32, from update `start` on; see `datasets.batch_indices`."""

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in itertools.count(start, CHUNK):
            steps = range(first, first + CHUNK)
            index = train[
                [datasets.batch_indices(seed, k, len(train), config.batch_size) for k in steps]
            ]
            yield index.astype(np.int32), labels[index]

    spec = tf.TensorSpec((CHUNK, config.batch_size), tf.int32)
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
    for seed in range(config.seed, config.seed + config.runs):
        folder = experiment / f"seed-{seed}"
        precision, reason = environment.precision(config.precision)
        if not restart:
            precision, reason = _settle(config, folder, precision, reason)
            if (folder / "results.json").exists():
                _say_finished(folder)
                _summarize(experiment, folder)
                continue
        data = data or datasets.load(config.dataset, config.data_dir)
        _check_sizes(config, data)
        if restart and folder.exists():
            with runs.lock(folder):
                print(f"moved the run that was in {folder} to {runs.move_aside(folder)}")
        runs.make_folder(folder)
        with runs.lock(folder):
            runs.remove_leftovers(folder)
            received = _train_seed(config, data, seed, folder, precision, reason)
        _summarize(experiment, folder)
        if received:
            raise Interrupted(received, config.steps)
        keras.backend.clear_session()
    return experiment


def _check_sizes(config: TrainConfig, data: datasets.Dataset) -> None:
    train, _ = datasets.split(len(data.train_labels), config.val_size, config.seed)
    if len(train) < config.batch_size:
        raise UserError(
            f"--batch-size must be at most the {len(train)} training images. "
            f"Received: {config.batch_size}"
        )


def _say_finished(folder: Path) -> None:
    results = _read(folder / "results.json", ("test_error", "steps"))
    print(
        f"{folder} is finished: test error {results['test_error']:.2f} % after "
        f"{results['steps']:,} updates (--restart would train it again)"
    )


def _read(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """A JSON file of a run folder that must have these keys."""
    value = runs.read_json(path)
    if not isinstance(value, dict) or not value.keys() >= set(keys):
        raise UserError(
            f"{path} must be a file of this program, with {', '.join(keys)}; use another --name, or "
            "--restart to move the run aside and start over"
        )
    return value


def _recipe(config: dict[str, Any]) -> dict[str, Any]:
    """What decides a run's numbers, but for its seed; from the content of config.json."""
    settings = {k: v for k, v in config["settings"].items() if k not in PLACES}
    return {**settings, "precision": config["precision"]}


def _settle(config: TrainConfig, folder: Path, precision: str, reason: str) -> tuple[str, str]:
    """Precision of the run and the reason for it; refuses settings that differ from the folder's.

    "auto" means the precision the run began with: a run that moves to another machine goes on as it was.
    """
    if not (folder / "config.json").exists():
        return precision, reason
    old = _read(folder / "config.json", ("settings", "precision", "versions"))
    new = {**dataclasses.asdict(config), "warmup_steps": config.warmup}
    differences = []
    if config.precision == "auto":
        precision, reason = old["precision"], "as this run began"
    elif precision != old["precision"]:
        differences.append(f"--precision {old['precision']} there, {precision} now")
    for key, value in old["settings"].items():
        if key not in PLACES and new.get(key) != value:
            flag = key.replace("_", "-")
            differences.append(f"--{flag} {value} there, {new.get(key)} now")
    if differences:
        raise UserError(
            f"{folder} holds a run with other settings: {'; '.join(differences)}. Give the same "
            "settings to resume it, another --name, or --restart to move it aside and start over"
        )
    if old["versions"] != environment.versions():
        print(
            f"note: this run began with other versions ({old['versions']}): not exactly repeatable"
        )
    return precision, reason


def _train_seed(
    config: TrainConfig,
    data: datasets.Dataset,
    seed: int,
    folder: Path,
    precision: str,
    reason: str,
) -> int:
    """Train one seed to its end; returns a signal that came too late to interrupt it, or 0."""
    kind, device = environment.device()
    train, validation = datasets.split(len(data.train_labels), config.val_size, seed)
    net = build_net(config, data, seed, precision)
    model = training_model(config, data, net, seed)
    parameters = int(sum(np.prod(v.shape) for v in net.trainable_variables))
    print(f"{config.experiment}, seed {seed}: {parameters:,} parameters; run folder {folder}")
    print(f"device: {kind} ({device}); precision: {precision} ({reason})", flush=True)
    if not (folder / "config.json").exists():
        runs.write_json(
            folder / "config.json",
            {
                "settings": {
                    **dataclasses.asdict(config),
                    "seed": seed,
                    "warmup_steps": config.warmup,
                },
                "precision": precision,
                "class_names": data.class_names,
                "versions": environment.versions(),
                "git_commit": environment.git_commit(),
                "device": {"kind": kind, "name": device},
                "command": shlex.join(["python", *sys.argv]),
            },
        )
    with Signals() as signals:
        run = RunCallback(
            config,
            folder,
            net,
            (data.train_images[validation], data.train_labels[validation]),
            signals,
        )
        found, problems = runs.newest_checkpoint(folder)
        problems += _missing(folder, found)
        for problem in problems:
            print(f"warning: {problem}; going on from the one before it", file=sys.stderr)
        if found is not None:
            run.restore(*found)
            print(f"resuming at update {run.step:,} of {config.steps:,}", flush=True)
            if run.step == config.steps:  # all that is missing is the end
                for variable in net.variables:
                    variable.assign(found[0][f"net/{variable.path}"])
        run.write_metrics()  # rows that a killed process wrote after the checkpoint come again
        try:
            if run.step < config.steps:
                batches = stream(config, data.train_labels, train, seed, run.step)
                updates = config.steps - run.step
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
        _finish(config, data, seed, folder, precision, run, parameters)
        return signals.received


def _missing(folder: Path, found: tuple[Any, dict[str, Any]] | None) -> list[str]:
    """What metrics.csv says of checkpoints that must have been there and are not."""
    rows = runs.read_metrics(folder)
    every = _read(folder / "config.json", ("settings",))["settings"]["checkpoint_every"]
    written = int(rows[-1]["step"] or 0) // every * every if rows else 0
    if found is None and written:
        raise UserError(
            f"{folder} has metrics up to update {rows[-1]['step']:.0f}, but its checkpoints are gone. "
            "Nothing was deleted; --restart moves this run aside and starts over"
        )
    if found is not None and found[1]["step"] < written and len(runs.checkpoints(folder)) == 1:
        return [f"the checkpoint of update {written} is missing"]
    return []


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
    trained = config.steps * config.batch_size
    runs.write_json(
        folder / "results.json",
        {
            "test_error": round(test_error, 4),
            "test_loss": test_loss,
            "val_error": last["val_error"],
            "train_error": last["train_error"],
            "steps": config.steps,
            "seconds": round(run.seconds, 1),
            "images_per_second": round(trained / run.seconds, 1) if run.seconds else None,
            "parameters": parameters,
            "model": config.model,
            "depth": config.depth,
            "shortcut": config.shortcut if config.model == "resnet" else None,
            "dataset": config.dataset,
            "seed": seed,
            "precision": precision,
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "versions": environment.versions(),
            "git_commit": environment.git_commit(),
        },
    )
    print(
        f"test error {test_error:.2f} % after {config.steps:,} updates in "
        f"{duration(run.seconds)}; saved {folder / 'model.keras'}",
        flush=True,
    )


def _summarize(experiment: Path, folder: Path) -> None:
    """Write and print mean and sample standard deviation over the finished seeds of `folder`'s recipe."""
    recipe = _recipe(_read(folder / "config.json", ("settings", "precision")))
    finished = {}
    for path in experiment.glob("seed-*/results.json"):
        config = runs.read_json(path.parent / "config.json") or {}
        seed = path.parent.name.removeprefix("seed-")
        if seed.isdigit() and "settings" in config and _recipe(config) == recipe:
            finished[int(seed)] = _read(path, ("test_error",))
    errors = [finished[seed]["test_error"] for seed in sorted(finished)]
    summary = {
        "test_error_mean": round(statistics.mean(errors), 4),
        "test_error_std": round(statistics.stdev(errors), 4) if len(errors) > 1 else None,
        "runs": len(errors),
        "seeds": sorted(finished),
        "test_errors": errors,
    }
    runs.write_json(experiment / "summary.json", summary)
    if len(errors) > 1:
        print(
            f"test error {summary['test_error_mean']:.2f} +- {summary['test_error_std']:.2f} % "
            f"(mean and sample std of {len(errors)} runs, seeds {summary['seeds']})"
        )
