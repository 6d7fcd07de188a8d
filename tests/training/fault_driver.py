"""Run train.py in this process with a fault switched on: `python fault_driver.py FAULT FLAGS...`.

FAULT is `none`, or `<event>:<count>`: at the count-th time (from 1) that the event happens, the process
kills itself with SIGKILL, exactly there. Events: `update` (before an update's callback), `write` (in the
middle of writing a checkpoint), `rename` (a temporary file is whole, not yet renamed), `renamed` (renamed,
the folder not yet synced), `save` (in the middle of saving model.keras). `wait:<count>` instead prints
"waiting" at that update and waits for a signal; SIGUSR1 lets it go on.
"""

import functools
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as train.py does

import keras
import numpy as np

import train
from keras_resnet.commands import terminal
from keras_resnet.data import synthetic
from keras_resnet.runs import files
from keras_resnet.training.callbacks import Count

synthetic.SYNTHETIC_SIZES = (1_000, 200)
# So large that the first updates of float16 overflow, and are skipped.
keras.optimizers.LossScaleOptimizer = functools.partial(
    keras.optimizers.LossScaleOptimizer, initial_scale=2.0**20
)


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def at(count, act):
    """A function that acts when it is called for the count-th time."""
    calls = iter(range(1, sys.maxsize))
    return lambda: act() if next(calls) == count else None


def wrap(owner, name, before):
    original = getattr(owner, name)

    def wrapped(*arguments, **options):
        before()
        return original(*arguments, **options)

    setattr(owner, name, wrapped)


def half(owner, name, event):
    """Let `owner.name(path-or-file, ...)` write all of it, cut it in half, then report the event."""
    original = getattr(owner, name)

    def wrapped(*arguments, **options):
        result = original(*arguments, **options)
        target = next(a for a in arguments if isinstance(a, Path) or hasattr(a, "fileno"))
        if hasattr(target, "flush"):
            target.flush()
        path = target if isinstance(target, Path) else Path(target.name)
        whole = path.read_bytes()
        os.truncate(path, len(whole) // 2)
        event()
        path.write_bytes(whole)
        return result

    setattr(owner, name, wrapped)


def install(fault):
    kind, _, count = fault.partition(":")
    event = at(int(count or 0), die)
    match kind:
        case "update":
            wrap(Count, "on_train_batch_end", event)
        case "wait":
            signal.signal(signal.SIGUSR1, lambda *_: None)
            # Every signal leaves a byte here. `signal.pause` would miss one that comes just before it.
            arrived, wakeup = os.pipe()
            os.set_blocking(wakeup, False)
            signal.set_wakeup_fd(wakeup)

            def wait():
                print("waiting", flush=True)
                os.read(arrived, 1)

            wrap(Count, "on_train_batch_end", at(int(count), wait))
        case "write":
            half(np, "savez", event)
        case "signal_at_save":
            wrap(keras.Model, "save", lambda: os.kill(os.getpid(), signal.SIGTERM))
        case "save":
            half(keras.Model, "save", event)
        case "rename":
            wrap(os, "replace", event)
        case "renamed":
            sync = files.sync
            files.sync = lambda path: (event() if path.is_dir() else None, sync(path))


if __name__ == "__main__":
    install(sys.argv[1])
    sys.exit(terminal.run(lambda: train.main(sys.argv[2:])))
