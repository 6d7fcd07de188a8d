"""One run from its plan to results.json, and the seeds of an experiment one after the other.

One `fit` is the whole run: an epoch means nothing here, all counts are updates. What must happen between
updates (validation, metrics, checkpoints, signals) is done by one callback. Everything random is a
function of (seed, step) or is in the checkpoint, so a run that was killed ends with the same bits as one
that was not (CPU; a GPU's kernels may add in another order).
"""

from __future__ import annotations

import functools
import math
import resource
import shlex
import sys
from pathlib import Path

import keras
import numpy as np

from keras_resnet import console, recipes
from keras_resnet.data import datasets, stream
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import DIVERGED, UserError
from keras_resnet.runs import files, provenance
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunConfig, RunResults
from keras_resnet.runs.run import experiment_folder
from keras_resnet.training import backends, devices, hosts
from keras_resnet.training.callback import Diverged, RunCallback
from keras_resnet.training.evaluation import evaluate, logits_of
from keras_resnet.training.model import build_net, chunks_of_batches, training_model
from keras_resnet.training.plan import RunPlan, plan_runs
from keras_resnet.training.reporters import Reporter, TensorBoard, Terminal
from keras_resnet.training.restore import find_checkpoint, print_changes
from keras_resnet.training.signals import Interrupted, Signals
from keras_resnet.training.summary import summarize

# Of the code that this process runs: asked for once, as the checkout may change while it trains.
_commit = functools.cache(provenance.git_commit)


def train(config: TrainConfig, restart: bool = False, data: Dataset | None = None) -> Path:
    """Train `config.runs` seeds one after the other; finished ones are not repeated.

    Args:
        config: the settings.
        restart: move what is in the run folders aside and start over.
        data: the data set, where it is loaded already.

    Returns:
        The experiment's folder, with one run folder per seed and summary.json.

    Raises:
        UserError: for everything the user can mend, and (exit code 3) for a loss that became NaN.
        Interrupted: on SIGINT, SIGTERM and SIGHUP, after a checkpoint.
    """
    hosts.join()
    _commit()
    experiment = experiment_folder(config)
    before = keras.distribution.distribution()
    try:
        devices = backends.current().distribute(config.devices)
        _train_all(config, restart, data, devices)
    finally:
        keras.distribution.set_distribution(before)
    return experiment


def _train_all(config: TrainConfig, restart: bool, data: Dataset | None, count: int) -> None:
    """Train the seeds one after the other, on so many devices."""
    if data is not None and data.name != config.dataset:
        raise UserError(
            f"`data` must be the data set that `dataset` names, {config.dataset}. Received: {data.name}"
        )
    # What is wrong is told before the first seed trains, not after hours, at the second.
    plans = plan_runs(config, restart)
    unfinished = [plan for plan in plans if not plan.finished]
    if unfinished:
        if data is None:
            console.print_line(f"loading {config.dataset}")
            data = datasets.load(config.dataset, config.data_dir)
        _check_sizes(config, data, count)
    if restart:
        for plan in unfinished:
            _move_aside(plan)
    for plan in plans:
        if plan.results is not None:
            console.print_line(
                f"{plan.folder.path} is finished: test error {plan.results['test_error']:.2f} % after "
                f"{plan.recipe.steps:,} updates (--restart would train it again)"
            )
            received, began_with = 0, plan.began_with
        else:
            assert data is not None
            received, began_with = _train_locked(plan, data, count)
        assert began_with is not None
        if plan.results is None or plan is plans[-1]:
            summarize(experiment_folder(config), began_with)
        if received and plan is not plans[-1]:  # the last has ended in spite of the signal
            raise Interrupted(received, plan.recipe.steps)
        _clear_session()


def _clear_session() -> None:
    """Free what Keras keeps of a seed's net, but not the devices and the dtype policy, kept there too."""
    devices, policy = keras.distribution.distribution(), keras.config.dtype_policy()
    keras.backend.clear_session()
    keras.distribution.set_distribution(devices)
    keras.config.set_dtype_policy(policy)


def _check_sizes(config: TrainConfig, data: Dataset, count: int) -> None:
    left = stream.training_size(len(data.train_labels), config.val_size)
    batch_size = config.resolved_recipe.batch_size
    if left < batch_size:
        raise UserError(
            f"`batch_size` must be at most the {left} training images. Received: {batch_size}"
        )
    if batch_size % count:
        raise UserError(
            f"`batch_size` must be divisible by the {count} devices. Received: {batch_size}; give "
            "another, or fewer `devices`"
        )


def _move_aside(plan: RunPlan) -> None:
    path = plan.folder.path
    if files.exists(path):
        with files.lock(path):
            target = files.move_aside(path)
            console.print_line(f"moved the run that was in {path} to {target}")


def _train_locked(plan: RunPlan, data: Dataset, count: int) -> tuple[int, RunConfig]:
    """Train one seed; returns a signal that came too late to interrupt it, or 0, and config.json."""
    files.make_folder(plan.folder.path)
    with files.lock(plan.folder.path):
        files.remove_leftovers(plan.folder.path)
        plan = plan.renew()
        config = plan.began_with
        if plan.finished and config is not None:
            return 0, config
        if config is None:
            config = _describe(plan, data)
        else:
            print_changes(config)
        found = find_checkpoint(plan)
        if plan.began_with is None:
            plan.folder.write_config(config)
        net = build_net(plan.config, data, plan.seed, plan.precision)
        model = training_model(plan.config, data, net, start=found[1]["step"] if found else 0)
        _print_plan(plan, net, count)
        train_index, val_index = stream.split(
            len(data.train_labels), plan.config.val_size, plan.seed
        )
        with Signals() as signals:
            run = RunCallback(
                plan.config,
                plan.folder,
                net,
                (data.train_images[val_index], data.train_labels[val_index]),
                signals,
                _reporters(plan),
            )
            if found is not None:
                run.resume(*found)
                console.print_line(f"resuming at update {run.step:,} of {plan.recipe.steps:,}")
            # Rows that a killed process wrote after the checkpoint come again.
            plan.folder.write_metrics(run.rows)
            if run.step == plan.recipe.steps:  # all that is missing is the end
                run.set_model(model)
                run.assign()
            else:
                _fit(plan, model, run, data, train_index)
            _finish(plan, data, run)
            return hosts.agree(signals.received), config


def _reporters(plan: RunPlan) -> list[Reporter]:
    if hosts.index() > 0:  # process 0 tells
        return []
    return [
        Terminal(plan.recipe.steps, plan.recipe.batch_size),
        TensorBoard(plan.folder.path / "tensorboard"),
    ]


def _fit(
    plan: RunPlan, model: keras.Model, run: RunCallback, data: Dataset, train_index: np.ndarray
) -> None:
    steps = plan.recipe.steps - run.step
    chunks = chunks_of_batches(plan.config, data.train_labels, train_index, plan.seed, run.step)
    fed = backends.current().feed(chunks)
    try:
        model.fit(fed, steps_per_epoch=steps, callbacks=[run], shuffle=False, verbose=0)
    except Diverged as diverged:
        raise UserError(
            f"the loss became NaN or infinite at update {diverged.step}: training has diverged. "
            "Try `restart` with a smaller `learning_rate` or with `warmup_steps`",
            exit_code=DIVERGED,
        ) from None
    finally:
        run.close()
    assert run.step == plan.recipe.steps


def _describe(plan: RunPlan, data: Dataset) -> RunConfig:
    config: RunConfig = {
        "settings": {**plan.config.settings(), "seed": plan.seed},
        "backend": keras.backend.backend(),
        "precision": plan.precision,  # type: ignore[typeddict-item]
        "class_names": list(data.class_names),
        "versions": provenance.versions(keras.backend.backend()),
        "git_commit": _commit(),
        "device": devices.facts(),
        "command": _command(),
    }
    onednn = devices.onednn()
    return config if onednn is None else {**config, "onednn": onednn}


def _command() -> str:
    """The command that trains this, as it can be given again."""
    script = Path(sys.argv[0]).name
    installed = script in ("keras-resnet", "__main__.py")
    return shlex.join(
        [*(["keras-resnet"] if installed else ["python", sys.argv[0]]), *sys.argv[1:]]
    )


def _print_plan(plan: RunPlan, net: keras.Model, count: int) -> None:
    kind, device = devices.device()
    console.print_line(
        f"{plan.config.experiment}, seed {plan.seed}: {_parameters(net):,} parameters; "
        f"run folder {plan.folder.path}"
    )
    console.print_line(
        f"backend: {keras.backend.backend()}; "
        f"{'device' if count == 1 else f'{count} devices'}: {kind} ({device}); "
        f"precision: {plan.precision} ({plan.reason})"
    )
    if slow := devices.emulation(plan.precision):
        console.print_line(f"note: {plan.precision} may be much slower than float32 here: {slow}")
    console.print_line(f"recipe: {recipes.describe_changes(plan.recipe, plan.config.depth)}")


def _parameters(net: keras.Model) -> int:
    return int(sum(np.prod(v.shape) for v in net.trainable_variables))


def _peak_memory_mib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)  # bytes on a Mac, else KiB


def _finish(plan: RunPlan, data: Dataset, run: RunCallback) -> None:
    """The test error, once; the float32 net; results.json last, because it says "finished"."""
    net = build_net(plan.config, data, plan.seed, "float32")
    net.set_weights(run.net.get_weights())
    console.print_line(f"testing on {len(data.test_labels):,} images")
    test_loss, test_error = evaluate(logits_of(net), data.test_images, data.test_labels)
    with files.atomic(plan.folder.model_path) as temporary:
        net.save(temporary)
    config, clock, last = plan.config, run.clock, run.rows[-1]
    images = clock.timed * plan.recipe.batch_size
    results: RunResults = {
        "test_error": round(test_error, 4),
        "test_loss": test_loss if math.isfinite(test_loss) else None,
        "val_error": last["val_error"],
        "train_error": last["train_error"] or 0.0,
        "steps": plan.recipe.steps,
        "recipe": plan.recipe.name,
        "seconds": round(clock.seconds, 1),
        "images_per_second": round(images / clock.seconds, 1) if clock.seconds else None,
        "parameters": _parameters(net),
        "model": config.model,
        "depth": config.depth,
        "shortcut": config.shortcut if config.model == "resnet" else None,
        "dataset": config.dataset,
        "seed": plan.seed,
        "backend": keras.backend.backend(),
        "precision": plan.precision,
        "peak_memory_mib": _peak_memory_mib(),
        "device": devices.facts(),
        "versions": provenance.versions(keras.backend.backend()),
        "git_commit": _commit(),
    }
    plan.folder.write_results(results)
    console.print_line(
        f"test error {test_error:.2f} % after {plan.recipe.steps:,} updates in "
        f"{console.duration(clock.seconds)}; saved {plan.folder.model_path}"
    )
