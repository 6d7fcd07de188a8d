"""One run from its settings to results.json, and the seeds of an experiment one after the other.

One `fit` is the whole run: an epoch means nothing here, all counts are updates. What happens between updates
is in callbacks.py. Everything random is a function of (seed, step) or is in the checkpoint: on a CPU, a run
that was killed ends with the same bits as one that was not.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np
from keras import Model

from keras_resnet import console, recipes
from keras_resnet.data import datasets, folders
from keras_resnet.data.constants import DATASETS
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError, missing
from keras_resnet.inference.evaluate import loss_and_error
from keras_resnet.nets.describe import count_parameters
from keras_resnet.nets.family import MODELS
from keras_resnet.nets.stock import stock
from keras_resnet.runs import checkpoint, files, provenance, resume
from keras_resnet.runs.checkpoint import Arrays, State
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunConfig
from keras_resnet.runs.run import Run, refuse_output_among_images, runs_of, write_summary
from keras_resnet.training import backends, callbacks, devices, hosts, loggers, metadata
from keras_resnet.training.callbacks import refuse_callbacks
from keras_resnet.training.model import chunks, training_model
from keras_resnet.training.net import build_net, function_of, logits_of, settings_of_weights
from keras_resnet.training.progress import Progress, ProgressBar
from keras_resnet.training.signals import TESTING, Interrupted

Callbacks = Sequence[keras.callbacks.Callback]
Split = tuple[np.ndarray, np.ndarray]  # indices of the images to train on and to validate with
Begun = tuple[RunConfig | None, tuple[Arrays, State] | None]  # config.json and newest checkpoint


def train(
    config: TrainConfig,
    *,
    restart: bool = False,
    data: Dataset | None = None,
    callbacks: Callbacks = (),
) -> Path:
    """Train `config.runs` seeds one after the other; finished ones are not repeated.

    Args:
        config: the settings.
        restart: move what is in the run folders aside and start over.
        data: the data set, if it is loaded already; your own images replace `config.dataset`.
        callbacks: Keras's own or yours. To them an epoch is one evaluation, and the model is the net
            without the augmentation; `logs` hold loss, accuracy, val_loss, val_accuracy, learning_rate and
            step. If one sets `model.stop_training`, the run ends and counts as finished. Those that set the
            learning rate are refused.

    Returns:
        The experiment's folder, with one run folder per seed and summary.json.

    Raises:
        TypeError, ValueError: for arguments of another kind.
        UserError: for everything that the user can fix, and (exit code 3) for a loss that became NaN.
        Interrupted: on SIGINT, SIGTERM and SIGHUP, after a checkpoint.
    """
    if not isinstance(config, TrainConfig) or not isinstance(data, Dataset | None):
        raise ValueError(
            f"`config` must be a TrainConfig, `data` a Dataset. Received: {config!r:.80}, {data!r:.80}"
        )
    hosts.join()
    provenance.git_commit()  # kept from now on: the checkout may change
    if data is not None and data.is_own:
        config = dataclasses.replace(config, dataset=data.name, data_dir=data.data_dir)
    callbacks = refuse_callbacks(callbacks)
    if limit := keras.config.max_steps_per_epoch():
        raise UserError(f"KERAS_MAX_STEPS_PER_EPOCH must not be set. Received: {limit}")
    if config.log != "tensorboard" and importlib.util.find_spec(config.log) is None:
        raise missing(config.log, f"`log` {config.log}")
    config = settings_of_weights(config)
    if config.model not in MODELS:
        function_of(config.model)  # a wrong name is an error before the data is read
    runs, backend = runs_of(config), keras.backend.backend()
    with devices.distributed(config.devices) as count:
        # Each host may have its own folders.
        shared = {**dataclasses.asdict(config), "output_dir": None, "data_dir": None}
        hosts.check_same(
            {**shared, "restart": restart, "precision": devices.precision(config.precision)[0]}
        )
        # All seeds are checked before the first trains, not hours later. What a restart moves aside may be of
        # any kind.
        asked = [] if restart else runs
        results = hosts.on_first(lambda: [resume.read_results(run, backend) for run in asked])
        if restart or not all(results) or config.dataset not in DATASETS:
            data = _load(config, data, count)
            hosts.check_same({"dataset": data.content_hash})
        if restart:
            hosts.on_first(_move_aside, runs)
        for run in runs:
            signum = train_run(run, data, count, callbacks)
            summary = hosts.on_first(write_summary, run)
            if summary and run is runs[-1]:
                console.print_line(summary)
            if signum and run is not runs[-1]:
                raise Interrupted(signum, run.recipe.steps)
            devices.clear_session()
    return runs[0].folder.path.parent


def train_run(run: Run, data: Dataset | None, count: int, users: Callbacks = ()) -> int:
    """Train or resume one seed on `count` devices; returns a signal that came after its last update, or 0."""
    with contextlib.ExitStack() as held:
        opened = hosts.on_first(_open, run, held, data)
        if opened is None:  # finished
            return 0
        assert data is not None
        began, newest = opened
        progress = Progress(run, newest)
        split = data.split(run.config.val_size, run.config.seed)
        if len(split[1]):
            progress.keep = run.config.keep or ("best" if data.is_own else "last")
        precision, reason = devices.precision(run.config.precision, began)
        net = build_net(run.config, data, precision)
        _refuse_what_does_not_fit(net, run.recipe.batch_size // count)
        model = training_model(run, data, net, start=progress.step)
        if began is None:
            hosts.on_first(run.folder.write_config, metadata.config_of(run, data, precision))
        else:
            devices.print_changes(began)
        hosts.on_first(run.folder.write_metrics, progress.rows)
        _print_plan(run, net, count, precision, reason)
        if newest:
            console.print_line(f"resuming at update {progress.step:,} of {run.recipe.steps:,}")
        with progress.signals:
            if not progress.ended:
                _fit(progress, data, split, net, model, users)
            elif newest:  # trained, but not tested
                checkpoint.restore(net, model, progress.arrays)
            progress.signals.message = TESTING
            _finish(progress, data, net, precision)
            return hosts.agree(progress.signals.received)


def _open(run: Run, held: contextlib.ExitStack, data: Dataset | None) -> Begun | None:
    """Lock a run's folder; returns its config.json and newest checkpoint, or None if it is finished."""
    held.enter_context(files.lock(run.folder.path))
    began = run.folder.read_config()
    if began and data:
        there, now = {"hash": began.get("content_hash")}, {"hash": data.content_hash}
        resume.refuse_others(run.folder.path, there, now, "images")
    # Once more: another process may have trained here meanwhile.
    if results := resume.read_results(run, keras.backend.backend()):
        console.print_line(
            f"{run.folder.path} is finished: test error {results['test_error']:.2f} % after "
            f"{results.get('steps', run.recipe.steps):,} updates (--restart would train it again)"
        )
        return None
    return began, resume.find_checkpoint(run)


def _fit(
    progress: Progress, data: Dataset, split: Split, net: Model, model: Model, users: Callbacks
) -> None:
    """Make the updates that are left. Raises Interrupted where a signal ended them."""
    run, images, labels = progress.run, data.train_images, data.train_labels
    train, val = split
    batches = backends.current().feed(partial(chunks, run, labels, train, progress.step))
    steps = run.recipe.steps - progress.step
    with contextlib.closing(ProgressBar(progress)) as bar:
        after_updates = [
            callbacks.Restore(progress, net),
            callbacks.Count(progress),
            bar,
            callbacks.Evaluate(progress, net, images[val], labels[val]),
            *([loggers.Log(progress)] if hosts.is_first() else []),
            *([callbacks.CallUsers(progress, net, users)] if users else []),
            callbacks.Save(progress, net),
        ]
        model.fit(batches, steps_per_epoch=steps, callbacks=after_updates, shuffle=False, verbose=0)
    if progress.stopped_early:  # with the weights that the user's callback left
        callbacks.save_checkpoint(progress, net, model)
    elif not progress.ended:
        raise Interrupted(progress.signum, progress.step)


def _finish(progress: Progress, data: Dataset, net: Model, precision: str) -> None:
    """Save the net, measure its test error once, and write results.json last: it says "finished"."""
    folder = progress.run.folder
    for variable in net.variables if progress.best else ():
        variable.assign(progress.best[variable.path])
    saved = stock(net)
    console.print_line(f"testing on {len(data.test_labels):,} images")
    logits = backends.current().predict(logits_of(saved), data.test_images)
    test_loss, test_error = loss_and_error(logits, data.test_labels)
    results = metadata.results_of(progress, net, precision, test_loss, test_error)

    def save() -> None:
        with files.atomic(folder.model_path) as temporary:
            saved.save(temporary)
        folder.write_results(results)

    hosts.on_first(save)
    console.print_line(
        f"test error {test_error:.2f} % of the net of update {progress.kept['step']:,} (keep "
        f"{progress.keep}) after {progress.step:,} updates in {console.duration(progress.seconds)}; saved "
        f"{folder.model_path}"
    )


def _load(config: TrainConfig, data: Dataset | None, count: int) -> Dataset:
    """Load the data set, and check that these settings can train on it."""
    if data is None:
        refuse_output_among_images(config)
        console.print_line(f"loading {config.dataset}")
        data = datasets.load(config.dataset, config.data_dir, config.image_size, config.unreadable)
    elif data.name != config.dataset:
        raise UserError(f"`data` must be the `dataset`, {config.dataset}. Received: {data.name}")
    elif config.image_size not in (None, size := data.train_images.shape[1]):
        raise UserError(
            f"`image_size` must be that of `data`, {size}. Received: {config.image_size}"
        )
    train, val = data.split(config.val_size, config.seed)
    if config.keep == "best" and not len(val):
        raise UserError("`keep` must be last where no image is left for validation. Received: best")
    left = len(train)
    if data.is_own:
        _, height, width, _ = data.train_images.shape
        console.print_line(
            f"{data.name}: {left:,} training, {len(val):,} validation and {len(data.test_labels):,} test "
            f"images of {height}x{width}, {len(data.class_names)} classes{data.split_note}"
        )
    batch_size = config.resolve_recipe().batch_size
    if left < batch_size or batch_size % count:
        raise UserError(
            f"`batch_size` must be at most the {left} training images, and divisible by the number of "
            f"devices, {count}. Received: {batch_size}"
        )
    return data


def _refuse_what_does_not_fit(net: Model, batch_size: int) -> None:
    """Raise UserError where an update on a CPU needs more memory than is free: the system would end it."""
    # Each layer that learns keeps its input for its gradient. Measured: 20 to 40 % more in all (ResNet-20).
    if backends.current().hardware().kind != "CPU":
        return
    size = batch_size * sum(
        math.prod(side or 1 for side in layer.input.shape[1:])
        * (4 if layer.compute_dtype == "float32" else 2)
        for layer in net.layers
        if layer.trainable_variables and isinstance(layer.input, keras.KerasTensor)
    )
    advice = "take a smaller `batch_size` or smaller images (`image_size`)"
    folders.refuse_what_does_not_fit(size, "an update needs at least", advice)


def _move_aside(runs: Sequence[Run]) -> None:
    paths = [run.folder.path for run in runs if os.path.exists(run.folder.path)]
    for path in paths:  # none is moved where another process trains in one of them
        with files.lock(path):
            pass  # Windows renames no folder with an open file
    for path in paths:
        console.print_line(f"moved the run that was in {path} to {files.move_aside(path)}")


def _print_plan(run: Run, net: Model, count: int, precision: str, reason: str) -> None:
    hardware = backends.current().hardware()
    parameters = count_parameters(net)
    console.print_line(f"{run}: {parameters:,} parameters; run folder {run.folder.path}")
    console.print_line(
        f"backend: {keras.backend.backend()}; {'device' if count == 1 else f'{count} devices'}: "
        f"{hardware.kind} ({hardware.name}); precision: {precision} ({reason})"
    )
    if precision != "float32" and hardware.kind == "CPU":
        fast, known = devices.native(precision)
        if not fast:
            console.print_line(f"note: {precision} may be much slower than float32 here: {known}")
    console.print_line(f"recipe: {recipes.describe_changes(run.recipe, run.config.depth)}")
