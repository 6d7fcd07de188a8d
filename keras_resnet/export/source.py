"""What is exported: a net, its run and its data set, as far as they are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_resnet.data import constants, datasets
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError
from keras_resnet.inference.class_names import names_beside
from keras_resnet.nets.describe import recognize_dataset
from keras_resnet.runs.folder import RunConfig, RunFolder, RunResults


@dataclasses.dataclass(frozen=True)
class Source:
    """A net and what is known of it."""

    net: keras.Model
    config: RunConfig | None  # of its run folder; None for a bare file
    results: RunResults | None
    dataset: str | None  # name
    data: Dataset | None  # only where it is on this machine
    class_names: tuple[str, ...]


def open_source(
    net: keras.Model,
    path: Path,
    file: Path,
    dataset: str | None,
    data_dir: str | None,
    needs_data: bool,
) -> Source:
    config = results = None
    beside = path.is_dir() or file.name == "model.keras"
    if beside and not (file.parent / "export.json").is_file():  # there config.json is Keras's
        run = RunFolder(file.parent)
        config, results = run.read_config(), run.read_results()
    settings = config["settings"] if config else {}
    classes = net.output_shape[-1]
    name = dataset or str(settings.get("dataset") or "") or recognize_dataset(net)
    data = None
    if name:
        folder = datasets.folder_of(name, data_dir, recorded=str(settings.get("data_dir") or ""))
        if dataset or needs_data or datasets.is_in(folder, name):
            data = datasets.load(name, str(folder))
    elif needs_data:
        raise UserError(
            "`quantize` needs training images, and nothing says which data set this net was "
            f"trained on; name it with `dataset` ({', '.join(constants.NORMALIZATION)})"
        )
    names: Sequence[str] = config.get("class_names", ()) if config else ()
    names = names or names_beside(file, classes) or ()
    if dataset and data:
        data.check_classes(names or [f"class {k}" for k in range(classes)])
    names = names or (data.class_names if data else ())
    names = names or (constants.CLASS_NAMES[name] if name else ())
    names = names or [f"class {k}" for k in range(classes)]
    if len(names) != classes:
        raise UserError(f"the net has {classes} classes, but {len(names)} names: {name or file}")
    # A name is a line of labels.txt.
    return Source(net, config, results, name, data, tuple(" ".join(str(n).split()) for n in names))
