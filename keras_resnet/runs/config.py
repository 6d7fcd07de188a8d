"""The settings of a training run: one frozen dataclass, from which `train.py` makes its flags."""

import dataclasses
import os
import re
import typing
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from keras_resnet.data.constants import DATASETS
from keras_resnet.errors import UserError
from keras_resnet.nets.family import MODELS, SHORTCUTS, blocks_per_stage
from keras_resnet.recipes import RECIPES, Recipe
from keras_resnet.runs.files import MOVED_ASIDE

_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
OF_WEIGHTS = ("model", "depth", "shortcut")  # settings that `weights` gives


def _setting(default: Any, text: str, **metadata: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, **metadata})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a run. Where a number of the recipe is None, the recipe's own counts; see `resolve_recipe`.

    Raises:
        ValueError: for a value of another type or out of range; the message says what was expected and
            what came.
    """

    # fmt: off
    model: str = _setting("resnet", "resnet, plain (without shortcuts), or module:function, where function(input_shape, num_classes, seed) returns a net of yours", group="net")
    depth: int = _setting(20, "layers: 6n+2 for n blocks in each of 3 stages, e.g. 8, 20, 32, 44, 56, 110, 1202", group="net")
    shortcut: str = _setting("zeropad", "where the shape changes: zero channels (the paper's option A), a 1x1 convolution (B; in every block: C), or maxima and zero channels", choices=SHORTCUTS, group="net")
    weights: str | None = _setting(None, "a trained net to start from: a name of `keras-resnet models`, a .keras file or a run folder; it sets model, depth and shortcut", group="net")
    freeze: bool = _setting(False, "leave the trained net as it is and train only its dense layer", group="net")
    dataset: str = _setting("cifar10", "cifar10, cifar100, synthetic (needs no data on disk), or a path of your own images: a folder with one subfolder per class, or an .npz file", group="data")
    data_dir: str | None = _setting(None, "folder of tensorflow_datasets (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)", group="data")
    image_size: Annotated[int, Meta(ge=8, le=4_096)] | None = _setting(None, "height and width in pixels that your own images are resized to (default: 32; those of an .npz file keep theirs)", group="data")
    unreadable: str = _setting("refuse", "what to do about files of your own images that cannot be read", choices=("refuse", "skip"), group="data")
    val_size: Annotated[int, Meta(ge=0)] | None = _setting(None, "training images to validate on, drawn by seed; 0 trains on all (default: 5000; of your own images a tenth, or val/)", group="data")
    augment: str = _setting("crop+flip", "how training images are augmented; a flip ruins digits and letters", choices=("none", "crop", "crop+flip"), group="recipe")
    recipe: str | Recipe = _setting("paper", "paper: He et al., section 4.2; fast: a sixth of its updates; fast-0.2: what was fast in version 0.2; each number below can be changed", choices=tuple(RECIPES), group="recipe")
    steps: int | None = _setting(None, "updates; the learning-rate schedule scales with them", group="recipe")
    batch_size: int | None = _setting(None, "images per update", group="recipe")
    learning_rate: float | None = _setting(None, "highest rate of the schedule; it scales Muon's rate in recipe fast too", group="recipe")
    warmup_steps: int | None = _setting(None, "how many updates at the start have a lower rate; recipe paper has 400, for nets of 110 layers or more", group="recipe")
    weight_decay: float | None = _setting(None, "of SGD, not Muon; coupled: added to the gradient before the momentum", group="recipe")
    momentum: float | None = _setting(None, "momentum of SGD and Muon", group="recipe")
    crop_padding: int | None = _setting(None, "pixels around an image before its random crop; 0 crops nothing", group="recipe")
    devices: Annotated[int, Meta(ge=1)] | None = _setting(None, "devices per host; each batch is split among them (default: all on JAX, else one)", group="run")
    precision: str = _setting("auto", "auto: bfloat16 where the hardware multiplies it natively (a CPU: with oneDNN), else float32", choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"), group="run")
    seed: Annotated[int, Meta(ge=0)] = _setting(0, "seed of weights, split, order, crops and flips", group="run")
    runs: Annotated[int, Meta(ge=1, le=10_000)] = _setting(1, "train seeds SEED .. SEED+RUNS-1", group="run")
    eval_every: Annotated[int, Meta(ge=1)] = _setting(500, "updates between evaluations", group="run")
    checkpoint_every: Annotated[int, Meta(ge=1)] = _setting(500, "updates between checkpoints", group="run")
    keep: str | None = _setting(None, "which net is saved: best (lowest validation error) or last (default: best for your own images, else last)", choices=("best", "last"), group="run")
    output_dir: str = _setting("experiments", "run folders are <output-dir>/<name>/seed-<k>", group="output")
    name: str | None = _setting(None, "name of the experiment (default: e.g. resnet56)", group="output")
    log: str = _setting("tensorboard", "where the rows of metrics.csv are logged too", choices=("tensorboard", "wandb", "mlflow"), group="output")
    # fmt: on

    def __post_init__(self) -> None:
        for name, value in check_values(vars(self)).items():
            object.__setattr__(self, name, value)
        if self.dataset not in DATASETS:  # its name, and the folder that holds it
            path = os.path.join(*map(os.path.expanduser, (self.data_dir or "", self.dataset)))
            folder, name = os.path.split(os.path.abspath(path))
            if not name:
                _reject("dataset", "a folder below /", path)
            if name in DATASETS:
                _reject("dataset", f"a folder of another name: {name} is a data set", path)
            object.__setattr__(self, "dataset", name)
            object.__setattr__(self, "data_dir", folder)
        elif self.image_size is not None:
            _reject("image_size", f"left out for {self.dataset}, of 32x32", self.image_size)
        self.resolve_recipe()  # checks the numbers together
        if self.freeze and not self.weights:
            _reject("freeze", "given with `weights`, the net that it freezes", self.freeze)
        if self.keep == "best" and self.val_size == 0:
            _reject("keep", "last where `val_size` is 0", self.keep)
        if self.weights and self.model not in MODELS:
            _reject("weights", "left out for a `model` of your own", self.weights)
        if self.model == "plain" and self.shortcut != "zeropad":
            _reject("shortcut", "left out for `model` plain, which has none", self.shortcut)
        unseen = self.experiment[:1] == "." or MOVED_ASIDE.search(self.experiment)  # by `report`
        if "/" in self.experiment or unseen or not self.experiment.isprintable():
            expected = "a folder name without slashes that neither begins with . nor ends in .old-1"
            _reject("name", expected, ascii(self.experiment))

    def resolve_recipe(self) -> Recipe:
        """The recipe, fitted to the depth, with the numbers that are given."""
        numbers = Recipe.__dataclass_fields__.keys() & vars(self).keys() - {"name"}
        given = {name: getattr(self, name) for name in numbers}
        recipe = self.recipe if isinstance(self.recipe, Recipe) else RECIPES[self.recipe]
        return recipe.resolve(self.depth, **given)

    @property
    def experiment(self) -> str:
        """Name of the experiment's folder: `name`, else made of net, data set and recipe."""
        if self.name:
            return self.name
        shortcut = "" if self.shortcut == "zeropad" else f"-{self.shortcut}"
        net = f"{self.model}{self.depth}{shortcut}" if self.model in MODELS else self.model
        if self.weights:
            path = os.path.splitext(os.path.normpath(self.weights))[0]
            if path in (".", ".."):
                path = os.path.abspath(path)
            parts = [part for part in path.split(os.sep) if part]
            net = "-".join(["frozen" if self.freeze else "from", *parts[-2:]])
        dataset = "" if self.dataset == "cifar10" else f"-{self.dataset.removesuffix('.npz')}"
        recipe = self.resolve_recipe().name
        recipe = "" if recipe == "paper" else f"-{recipe}"
        return f"{net.replace(':', '-')}{dataset}{recipe}"


def check_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Some settings, each converted to its type: NumPy's numbers and paths are accepted.

    Raises ValueError for the first that no run can have, whatever the other settings are.
    """
    kinds = typing.get_type_hints(TrainConfig, include_extras=True)
    values = {name: convert(name, kinds[name], value) for name, value in given.items()}
    for name, value in values.items():
        field = TrainConfig.__dataclass_fields__[name]
        choices = field.metadata.get("choices")
        if choices and value not in (*choices, field.default) and not isinstance(value, Recipe):
            _reject(name, f"one of {', '.join(choices)}", value)
    if "depth" in values:
        blocks_per_stage(values["depth"])
    model = values.get("model", "resnet")
    if model not in MODELS and not re.fullmatch(r"\w+(\.\w+)*:\w+", model):
        _reject("model", f"one of {', '.join(MODELS)}, or module:function", model)
    return values


def convert(name: str, kind: Any, value: Any) -> Any:
    """The value of a setting as its type, or a UserError that names the setting."""
    if isinstance(value, Recipe):
        kind, fields = Recipe, dataclasses.asdict(value).items()
        value = {key: item.item() if hasattr(item, "item") else item for key, item in fields}
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    value = value.item() if hasattr(value, "item") else value
    try:
        value = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, UserError):  # of the Recipe itself
            raise error.__cause__ from None
        expected, _, field = str(error).replace("`", "").partition(" - at $.")
        value = value[field] if field else value
        expected = (
            expected.removeprefix("Expected ")
            .replace(" | null", "")
            .replace(" | object", "")
            .split(", got")[0]
        )
        expected = re.sub(r"^\w+", lambda word: _WORDS.get(word[0], word[0]), expected)
        _reject(field or name, expected, repr(value))
    if isinstance(value, str) and not (value.isprintable() and value.strip()):
        _reject(name, "printable text, not empty", ascii(value))
    return value


def _reject(name: str, expected: str, received: object) -> None:
    raise UserError(f"`{name}` must be {expected}. Received: {received}")
