"""The CIFAR networks of He et al. 2015 in Keras 3: build, train, export, use.

`import keras_resnet` registers this package's layers and optimizer with Keras, so that
`keras.models.load_model` opens its nets, and does nothing else: no environment variable, no warning
filter, and no backend but the one that Keras is configured for. Only our own commands put it off,
until their flags are parsed, and end at once on a Ctrl-C that comes before.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from keras_resnet import imports, interrupts
from keras_resnet._version import __version__

# Public name -> module that defines it.
_PUBLIC = {
    "SGD": "recipes.optimizer",
    "BatchNormalization": "nets.layers",
    "Muon": "recipes.muon",
    "Classifier": "inference.classifier",
    "RandomPadCrop": "data.augmentation",
    "TrainConfig": "runs.config",
    "ZeroPadShortcut": "nets.layers",
    "evaluate": "inference.evaluate",
    "learning_rate_schedule": "recipes.schedules",
    "plain": "inference.pretrained",
    "resnet": "inference.pretrained",
    "train": "training.trainer",
}

_PACKAGES = {"recipes": "recipes", "zoo": "inference.zoo"}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"keras_resnet.{_PACKAGES[name]}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'keras_resnet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"keras_resnet.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, *_PACKAGES])


def _is_our_command() -> bool:
    """Whether this process runs `keras-resnet`, `python -m keras_resnet`, or a checkout's train.py."""
    if sys.argv[:1] == ["-m"]:  # Python is still looking for the module that -m names
        following = zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
        named = [w for f, w in following if f[:1] == "-" and f[-1:] == "m" and f[1:].isalpha()]
        ours = ("keras_resnet.commands.", "keras_resnet.sweep.")
        if named and (named[0] == "keras_resnet" or named[0].startswith(ours)):
            return True
    script = sys.argv[0] if sys.argv and sys.argv[0] else "-c"
    name, checkout = os.path.basename(script), os.path.dirname(os.path.dirname(__file__))
    return name == "keras-resnet" or (
        name in ("train.py", "export.py")
        and os.path.dirname(os.path.realpath(script)) == os.path.realpath(checkout)
    )


if _is_our_command():
    interrupts.leave_at_once()
else:
    with imports.without_collection():
        importlib.import_module("keras_resnet.data.augmentation")
        importlib.import_module("keras_resnet.nets.layers")
        importlib.import_module("keras_resnet.recipes.muon")
