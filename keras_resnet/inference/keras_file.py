"""Open a `.keras` file of this package, and refuse everything else in one line.

A `.keras` file may come from anywhere, so it is looked at before Keras sees it: sizes are bounded,
and its config may only hold the layers that our nets are made of. Keras's safe mode stays on;
nothing is unpickled.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.nets.describe import parts
from keras_resnet.nets.resnet import allow_deep_graphs

# ResNet-1202, the largest net of the paper, has 78 MB of weights and 7 MB of config.
MAX_ARCHIVE_BYTES = 1 << 30
MAX_CONFIG_BYTES = 64 << 20
MAX_WINDOW = 8  # pixels of a kernel or a stride; ours have 3 at most
MAX_SIDE = 1024  # pixels; also bounds the number of filters, units and classes
CLASSES = frozenset(
    {
        "Functional", "InputLayer", "Rescaling", "ZeroPadding2D", "Conv2D", "BatchNormalization",
        "ReLU", "ZeroPadShortcut", "Add", "GlobalAveragePooling2D", "Dense", "Softmax",
        "VarianceScaling", "Zeros", "Ones", "DTypePolicy", "__keras_tensor__",
    }
)  # fmt: skip


def load_keras(path: Path | str) -> keras.Model:
    """Open a `.keras` file of ours, or the `model.keras` of a run folder.

    Args:
        path: the file or the run folder.

    Returns:
        The net: raw RGB pixels 0..255 `(N, H, W, C)` to probabilities `(N, classes)`, float32. It
        is not compiled, and has the dtype policies it was saved with.

    Raises:
        UserError: in one line, for a path that is missing, cannot be read, is damaged, is too
            large, is no Keras file, or holds a model that is not one of ours.
    """
    file = model_file(path)
    _inspect(file)
    try:
        allow_deep_graphs()
        net = keras.models.load_model(file, compile=False, safe_mode=True)
    except MemoryError:
        raise UserError(f"{file} does not fit into memory") from None
    except Exception as error:  # Keras, h5py and zlib raise many kinds
        raise _damaged(file, error) from None
    for weight in net.weights:
        if not np.all(np.isfinite(weight.numpy())):
            raise UserError(
                f"{file} holds NaN or infinite weights ({weight.path}): its training diverged; "
                "use another file"
            )
    return net


def model_file(path: Path | str) -> Path:
    """The `.keras` file meant by a file or a run folder. Raises UserError where there is none."""
    path = Path(path)
    try:
        if path.is_dir():
            return _in_folder(path)
        if not path.exists():
            raise UserError(f"{path} does not exist; expected a run folder or a .keras file")
        if path.suffix != ".keras" or not path.is_file():
            raise UserError(f"expected a run folder or a .keras file. Received: {path}")
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror or error})") from None
    return path


def _in_folder(folder: Path) -> Path:
    file = folder / "model.keras"
    if file.is_file():
        return file
    found = "it is empty"
    if (folder / "results.json").exists():
        found = "only the small files of a finished run are there; keras-resnet models lists trained nets"
    elif (folder / "config.json").exists():
        found = "its training has not finished: give the command of train.py again"
    elif (folder / "saved_model.pb").exists():
        found = "it is a SavedModel, and a .keras file is needed here"
    elif runs := sorted(folder.glob("seed-*/model.keras")):
        found = f"it is an experiment; name one of its runs, e.g. {runs[0].parent}"
    elif any(folder.iterdir()):
        found = "it is no run folder"
    raise UserError(f"expected model.keras in {folder}, but {found}")


def _inspect(file: Path) -> None:
    """Refuse what is not an archive of one of our nets, before anything is built from it."""
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {member.filename: member.file_size for member in archive.infolist()}
            if not {"config.json", "model.weights.h5"} <= sizes.keys():
                raise UserError(
                    f"{file} is a zip archive, but no Keras file: it holds no Keras model"
                )
            if sum(sizes.values()) > MAX_ARCHIVE_BYTES or sizes["config.json"] > MAX_CONFIG_BYTES:
                raise UserError(
                    f"{file} is larger than any net of ours ({sum(sizes.values()):,} bytes)"
                )
            problem = _problem(json.loads(archive.read("config.json")))
    except OSError as error:
        raise UserError(f"{file} could not be read ({error.strerror or error})") from None
    except Exception as error:  # zipfile alone raises six kinds
        raise _damaged(file, error) from None
    if problem:
        raise UserError(
            f"{file} holds a Keras model that is not one of ours ({problem}); expected one that "
            "train.py or keras_resnet.resnet() and plain() made"
        )


def _problem(config: Any) -> str | None:
    """Why the config of a saved model is not that of one of our nets; None if it is."""
    if not isinstance(config, dict) or config.get("class_name") != "Functional":
        return "no functional model"
    # Optimizer, loss and metrics of a compiled net may be anything: Keras is told to leave them out.
    for part in parts({key: value for key, value in config.items() if key != "compile_config"}):
        if part["class_name"] not in CLASSES:
            return f"it holds a {part['class_name']}"[:100]
        values = part.get("config")
        if isinstance(values, dict):
            numbers = [values.get(key, 0) for key in ("filters", "units")]
            numbers += (values.get("batch_shape") or [])[1:]
            windows = [values.get(key) or [] for key in ("kernel_size", "strides", "dilation_rate")]
            sides = [n for w in windows for n in (w if isinstance(w, list) else [w])]
            numbers += sides
            if any(not isinstance(n, int) or n > MAX_WINDOW for n in sides) or not all(
                isinstance(n, int) and 0 <= n <= MAX_SIDE for n in numbers
            ):
                return f"{values.get('name')} has sizes {numbers}; at most {MAX_SIDE}"[:100]
    model = config.get("config")
    if not isinstance(model, dict) or not isinstance(model.get("layers"), list):
        return "it has no layers"
    names = {layer.get("name") for layer in model["layers"] if isinstance(layer, dict)}
    missing = {"image", "normalization", "stem_conv", "stage3_block1_conv2", "head_dense"} - names
    if missing:
        return f"it has no layer {min(missing)}"
    if model.get("output_layers") not in (["probabilities", 0, 0], [["probabilities", 0, 0]]):
        return "its output is not probabilities"
    return None


def _damaged(file: Path, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    reason = (str(error).strip().splitlines() or [""])[0][:150]
    return UserError(
        f"{file} is damaged or is no Keras file ({type(error).__name__}: {reason}); "
        "copy or save it again"
    )
