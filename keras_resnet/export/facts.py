"""What is known of an exported net: the content of export.json, from which card and page are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.data import constants, datasets
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError
from keras_resnet.inference.open import names_beside
from keras_resnet.nets.describe import describe, recognize_dataset
from keras_resnet.runs import provenance
from keras_resnet.runs.folder import RunFolder

_PACKAGES = ("onnx", "tf2onnx", "onnxruntime")


def collect_facts(
    net: keras.Model,
    file: Path,
    dataset: str | None = None,
    data_dir: str | None = None,
    needs_data: bool = False,
) -> tuple[dict[str, Any], Dataset | None]:
    """The first part of export.json, and the net's data set where it is on this machine.

    Args:
        net: from pixels to probabilities.
        file: the `.keras` file that it was read from.
        dataset: name of its data set; None takes the run's, else the one with the net's normalization.
        data_dir: folder of tensorflow_datasets; None takes the run's, else the default.
        needs_data: whether to download a data set that is not on this machine.

    Raises:
        UserError: where the data set is needed but not known, cannot be read or has other classes.
    """
    config, results = _run_of(file)
    settings = config.get("settings", {})
    name = dataset or settings.get("dataset") or recognize_dataset(net)
    if needs_data and not name:
        raise UserError(
            "`quantize` needs training images, but the net's data set is not known; name it with "
            f"`dataset` ({', '.join(constants.NORMALIZATION)})"
        )
    names, data = _class_names(net, file, name), None
    if name:
        folder = datasets.folder_of(name, data_dir, recorded=settings.get("data_dir"))
        if dataset or needs_data or datasets.is_in(folder, name):
            data = datasets.load(name, str(folder))
            if dataset:
                data.check_classes(names)
    facts = describe(net)
    description = f"{facts['model']} of depth {facts['depth']}" if facts["model"] else net.name
    description += f", shortcut {facts['shortcut']}" if facts["shortcut"] else ""
    description += f", trained on {name}" if name else ""
    # The run measured the error on its own data set; the user may have named another.
    error = results.get("test_error") if settings.get("dataset") == name else None
    facts |= {
        "name": net.name,
        "description": description,
        "parameters": int(sum(np.prod(w.shape) for w in net.trainable_variables)),
        "dataset": name,
        "class_names": names,
        "source": file.name,
        "test_error": {} if error is None else {"keras": error},
        "training": {"config": provenance.without_folders(config), "results": results}
        if config
        else None,
        "versions": provenance.versions("tensorflow", *_PACKAGES),
        "git_commit": results.get("git_commit") or provenance.git_commit(),
    }
    return facts, data


def _run_of(file: Path) -> tuple[Any, Any]:
    """config.json and results.json of the run that a file is the net of; empty where there is no run."""
    # The config.json of an export folder is Keras's.
    if file.name != "model.keras" or (file.parent / "export.json").is_file():
        return {}, {}
    run = RunFolder(file.parent)
    return run.read_config() or {}, run.read_results() or {}


def _class_names(net: keras.Model, file: Path, dataset: str | None) -> list[str]:
    """The names beside the file, else those of the data set, else `class 0`, `class 1`, ..."""
    classes = net.output_shape[-1]
    names = names_beside(file, classes) or constants.CLASS_NAMES.get(dataset or "", ())
    if len(names) != classes:
        return [f"class {k}" for k in range(classes)]
    return [" ".join(name.split()) for name in names]  # one name is one line of labels.txt
