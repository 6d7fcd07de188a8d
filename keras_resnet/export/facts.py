"""What is known of an exported net: the content of export.json, from which card and page are made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_resnet import console
from keras_resnet.data import constants, datasets
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError
from keras_resnet.inference.open import names_beside, run_config
from keras_resnet.nets import describe
from keras_resnet.runs import provenance
from keras_resnet.runs.folder import RunFolder

# Name, and identifier on the Hugging Face hub.
HUB_NAMES = {
    "cifar10": ("CIFAR-10", "uoft-cs/cifar10"),
    "cifar100": ("CIFAR-100", "uoft-cs/cifar100"),
}


def collect_facts(
    net: keras.Model, file: Path, dataset: str | None, data_dir: str | None, needs_data: bool
) -> tuple[dict[str, Any], Dataset | None]:
    """The first part of export.json, and the net's data set where it is on this machine.

    The data set is the one that the user names, else the run's, else the one with the net's normalization.
    With `needs_data`, it is downloaded where it is missing. Raises UserError where it is needed but not
    known, cannot be read, or has other classes or images.
    """
    config: Any = (file.name == "model.keras" and run_config(file.parent)) or {}
    results: Any = (config and RunFolder(file.parent).read_results()) or {}
    settings = config.get("settings", {})
    name = dataset or settings.get("dataset") or describe.recognize_dataset(net)
    if needs_data and not name:
        raise UserError(
            "`quantize` needs training images, but the net's data set is not known; name it with "
            f"`dataset` ({', '.join(constants.NORMALIZATION)})"
        )
    classes, data = net.output_shape[-1], None
    beside = names_beside(file, classes)
    names = list(beside or constants.CLASS_NAMES.get(name or "", ()))
    if name and not (dataset or settings or beside):
        console.print_line(
            f"class names: those of {name}, whose mean, std and number of classes the net has; a labels.txt "
            f"beside {file} gives others"
        )
    if len(names) != classes:
        names = [f"class {k}" for k in range(classes)]
    if name:
        folder = datasets.folder_of(name, data_dir, settings.get("data_dir"), asked=dataset)
        if dataset or needs_data or datasets.is_in(folder, name):
            data = datasets.load_for_net(name, str(folder), net.input_shape[1:3])
            name = data.name
            if dataset or needs_data:
                data.check_classes(names)
            shape = data.train_images.shape[1:]
            if needs_data and shape != net.input_shape[1:]:
                raise UserError(
                    f"`quantize` needs images of the net's shape, {net.input_shape[1:]}. Received: {name}, "
                    f"of {shape}; name another data set with `dataset`"
                )
    facts, normalization = describe.describe(net), describe.normalization_of(net)
    description = f"{facts['model']} of depth {facts['depth']}" if facts["model"] else net.name
    description += f", shortcut {facts['shortcut']}" if facts["shortcut"] else ""
    description += f", trained on {name}" if name else ""
    # The run measured the error on its own data set; the user may have named another.
    same = settings.get("dataset") == name
    if data is not None:  # of the same name, maybe other images
        same = same and config.get("content_hash") in (None, data.content_hash)
    error = results.get("test_error") if same else None
    published = provenance.without_folders(config) if config else None
    facts |= {
        "name": net.name,
        "description": description,
        "parameters": describe.count_parameters(net),
        "normalization": None if normalization is None else normalization.tolist(),
        "dataset": name,
        "class_names": names,
        "source": file.name,
        "test_error": {} if error is None else {"keras": error},
        "training": published and {"config": published, "results": results},
        "versions": provenance.versions("tensorflow", "onnx", "tf2onnx", "onnxruntime", "openvino"),
        "git_commit": results.get("git_commit") or provenance.git_commit(),
    }
    return facts, data


def has_our_license(facts: Mapping[str, Any]) -> bool:
    """Whether this package's licence is a net's: not of weights from elsewhere, nor of the user's images."""
    return bool(facts["training"]) and facts["dataset"] in constants.DATASETS
