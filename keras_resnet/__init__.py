"""The CIFAR networks of He et al. 2015 in Keras 3: build, train, export, use.

`import keras_resnet` imports nothing heavy: a public name is loaded when it is first used. Our layers and
optimizers are registered with Keras as soon as both are imported, in whichever order, so that
`keras.models.load_model` opens the nets that hold them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

from keras_resnet._version import __version__

# ruff: noqa: F401
if TYPE_CHECKING:  # for editors and type checkers
    from keras_resnet.data.augmentation import RandomPadCrop
    from keras_resnet.data.dataset import Dataset
    from keras_resnet.inference.classifier import Classifier
    from keras_resnet.inference.evaluate import evaluate
    from keras_resnet.inference.pretrained import plain, resnet
    from keras_resnet.nets.layers import BatchNormalization, ZeroPadShortcut
    from keras_resnet.recipes.muon import Muon
    from keras_resnet.recipes.optimizer import SGD
    from keras_resnet.recipes.schedules import learning_rate_schedule
    from keras_resnet.runs.config import TrainConfig
    from keras_resnet.training.trainer import train

# Public name -> module that defines it.
_PUBLIC = {
    "BatchNormalization": "nets.layers", "Classifier": "inference.classifier", "Dataset": "data.dataset",
    "Muon": "recipes.muon", "RandomPadCrop": "data.augmentation", "SGD": "recipes.optimizer",
    "TrainConfig": "runs.config", "ZeroPadShortcut": "nets.layers", "evaluate": "inference.evaluate",
    "learning_rate_schedule": "recipes.schedules", "plain": "inference.pretrained",
    "recipes": "recipes", "resnet": "inference.pretrained", "train": "training.trainer",
    "zoo": "inference.zoo",
}  # fmt: skip
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'keras_resnet' has no attribute {name!r}")
    module = importlib.import_module(f"keras_resnet.{_PUBLIC[name]}")
    if "keras" in sys.modules:
        _register()
    return getattr(module, name, module)  # `recipes` and `zoo` are modules


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


def _register() -> None:
    """Import the modules of the classes that a saved net may hold; each is registered where it is defined."""
    for module in ("data.augmentation", "nets.layers", "recipes.muon"):
        importlib.import_module(f"keras_resnet.{module}")


class _KerasFinder:
    """Finds Keras as Python does, and registers our classes once it is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name) if name == "keras" else None
        if spec and spec.loader:
            import_keras = spec.loader.exec_module

            def import_keras_and_register(module: Any) -> None:
                import_keras(module)
                # Where one of our modules is importing Keras, those that need it whole register later.
                with contextlib.suppress(ImportError):
                    _register()

            spec.loader.exec_module = import_keras_and_register  # type: ignore[method-assign]
        return spec


if "keras" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _KerasFinder())
