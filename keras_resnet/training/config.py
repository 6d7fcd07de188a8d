"""The settings of a training run: one frozen dataclass, from which `train.py` makes its flags."""

from __future__ import annotations

import dataclasses
import functools
import os
import typing
from typing import Any

from keras_resnet.data.constants import DATASETS
from keras_resnet.errors import integer, number
from keras_resnet.nets.family import MODELS, SHORTCUTS, blocks_per_stage
from keras_resnet.recipes import RECIPES, Recipe
from keras_resnet.runs.folder import MAX_STEPS

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


def _setting(default: Any, text: str, **metadata: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, **metadata})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A run's settings. What is None is the recipe's; see `resolved_recipe`.

    Raises:
        TypeError: for a value of another type; it names the argument.
        ValueError: for a value out of range; the message says what was expected and what came.
    """

    # fmt: off
    model: str = _setting("resnet", "with shortcuts or without", choices=MODELS)
    depth: int = _setting(20, "6n+2: 20, 32, 44, 56, 110, 1202")
    shortcut: str = _setting("zeropad", "zeropad is the paper's option A", choices=SHORTCUTS)
    dataset: str = _setting("cifar10", "synthetic needs no data on disk", choices=DATASETS)
    data_dir: str | None = _setting(None, "folder of tensorflow_datasets (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)")
    val_size: int = _setting(5_000, "images split off for validation, by seed; 0 trains on all")
    recipe: str = _setting("paper", "paper: He et al., section 4.2; fast: a sixth of its updates; fast-0.2: what was fast in version 0.2; each number below can be changed", choices=tuple(RECIPES))
    steps: int | None = _setting(None, "updates; the schedule of the learning rate scales with them")
    batch_size: int | None = _setting(None, "images per update")
    learning_rate: float | None = _setting(None, "the highest of the schedule; Muon's rate in recipe fast scales with it")
    warmup_steps: int | None = _setting(None, "first updates at lower rates; recipe paper has 400 from 110 layers on")
    weight_decay: float | None = _setting(None, "coupled: added to the gradient before the momentum; not of what Muon trains")
    momentum: float | None = _setting(None, "of SGD and Muon")
    crop_padding: int | None = _setting(None, "pixels around an image before its random crop; 0 crops nothing")
    devices: int | None = _setting(None, "devices per host; each batch is split among them (default: all on JAX, else one)")
    precision: str = _setting("auto", "auto: bfloat16 where the hardware multiplies it natively (a CPU: with oneDNN), else float32", choices=PRECISIONS)
    seed: int = _setting(0, "of weights, split, order, crops and flips")
    runs: int = _setting(1, "train seeds SEED .. SEED+RUNS-1")
    eval_every: int = _setting(500, "updates between validations")
    checkpoint_every: int = _setting(500, "updates between checkpoints")
    output_dir: str = _setting("experiments", "run folders are <output-dir>/<name>/seed-<k>")
    name: str | None = _setting(None, "of the experiment (default: e.g. resnet56)")
    # fmt: on

    def __post_init__(self) -> None:
        self._normalize_types()
        blocks_per_stage(self.depth)
        for field in dataclasses.fields(self):
            choices, value = field.metadata.get("choices"), getattr(self, field.name)
            if choices and value not in choices:
                _reject(field.name, f"one of {', '.join(choices)}", value)
        recipe = self.resolved_recipe
        if recipe.batch_size < 1:
            _reject("batch_size", "1 or more", recipe.batch_size)
        for name in ("eval_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                _reject(name, "1 or more", getattr(self, name))
        if self.devices is not None and self.devices < 1:
            _reject("devices", "1 or more", self.devices)
        if self.runs < 1:
            _reject("runs", "1 or more", self.runs)
        if self.runs > 10_000:
            _reject("runs", "at most 10000", self.runs)
        for name in ("val_size", "seed"):
            if getattr(self, name) < 0:
                _reject(name, "0 or more", getattr(self, name))
        if recipe.steps < 4:
            _reject("steps", "4 or more, so that the rate can drop at 1/2 and 3/4", recipe.steps)
        if recipe.steps > MAX_STEPS:
            _reject("steps", f"at most {MAX_STEPS}", recipe.steps)
        if recipe.learning_rate <= 0:
            _reject("learning_rate", "above 0", recipe.learning_rate)
        if recipe.weight_decay < 0:
            _reject("weight_decay", "0 or more", recipe.weight_decay)
        for name in ("learning_rate", "weight_decay"):
            if getattr(recipe, name) > 1e30:  # float32 would soon be infinite
                _reject(name, "at most 1e30", getattr(recipe, name))
        if not 0 <= recipe.momentum < 1:
            _reject("momentum", "0 or more and below 1", recipe.momentum)
        if not 0 <= self.warmup < recipe.steps // 2:
            _reject(
                "warmup_steps", f"0 or more and below half of steps={recipe.steps}", self.warmup
            )
        if not 0 <= recipe.crop_padding <= 1_000:
            _reject("crop_padding", "0 to 1000", recipe.crop_padding)
        if self.model == "plain" and self.shortcut != "zeropad":
            _reject("shortcut", "left out for `model` plain, which has none", self.shortcut)
        if self.name is not None and (
            not _readable(self.name) or "/" in self.name or self.name in (".", "..")
        ):
            _reject("name", "a folder name of printable characters without slashes", self.name)
        for name in ("output_dir", "data_dir"):
            path = getattr(self, name)
            if path is not None and not _readable(path):
                _reject(name, "a path of printable characters, not empty", path)

    def _normalize_types(self) -> None:
        """Take integers and floats of any library, and paths; refuse the rest with the argument's name."""
        for name, kind in typing.get_type_hints(type(self)).items():
            value = getattr(self, name)
            options = [t for t in typing.get_args(kind) if t is not type(None)]
            if value is None and options:
                continue
            kind = options[0] if options else kind
            if kind is int:
                value = integer(name, value)
            elif kind is float:
                value = number(name, value)
            elif isinstance(value, os.PathLike):
                value = os.fspath(value)
            if not isinstance(value, kind):
                raise TypeError(f"`{name}` must be text. Received: {name}={value!r}")
            object.__setattr__(self, name, value)

    @functools.cached_property
    def resolved_recipe(self) -> Recipe:
        """The recipe that this run trains with: the named one, fitted to the depth, with what is given."""
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(Recipe)
            if field.name != "name" and hasattr(self, field.name)
        }
        return RECIPES[self.recipe].resolve(self.depth, **given)

    @property
    def warmup(self) -> int:
        """Updates of the warm-up."""
        return self.resolved_recipe.warmup_steps

    def settings(self) -> dict[str, Any]:
        """All settings as they are stored: what was left to the recipe stands as its number."""
        return {**dataclasses.asdict(self), **self.resolved_recipe.settings()}

    @property
    def experiment(self) -> str:
        """Name of the experiment's folder: the given one, else built from what is not default."""
        if self.name:
            return self.name
        shortcut = "" if self.shortcut == "zeropad" else f"-{self.shortcut}"
        dataset = "" if self.dataset == "cifar10" else f"-{self.dataset}"
        recipe = "" if self.recipe == "paper" else f"-{self.recipe}"
        return f"{self.model}{self.depth}{shortcut}{dataset}{recipe}"


def _readable(text: str) -> bool:
    """Whether it can be printed and seen. Bytes that are not UTF-8 cannot, in Python's form."""
    return text.isprintable() and bool(text.strip())


def _reject(name: str, expected: str, received: object) -> None:
    if isinstance(received, str) and not _readable(received):
        received = ascii(received)
    raise ValueError(f"`{name}` must be {expected}. Received: {received}")
