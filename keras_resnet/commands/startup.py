"""Start Keras for a command: its backend, TensorFlow's fast CPU kernels, no start-up notes.

TensorFlow uses oneDNN's convolutions unasked only on a CPU with AVX512_VNNI, AVX_VNNI, AVX512_BF16 or AMX.
With AVX2 alone they still train ResNet-20 three times as fast as TensorFlow's own (docs/speed.md), so a
command asks for them; TF_ENABLE_ONEDNN_OPTS=0 wins. TensorFlow 2.21 writes notes about oneDNN and missing
GPUs to stderr before its log level counts. They would bury our one-line errors, so lines of that form are
dropped; TF_CPP_MIN_LOG_LEVEL=0 shows all. Only commands do this: `import keras_resnet` changes nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from keras_resnet import console
from keras_resnet.commands import terminal
from keras_resnet.errors import UserError
from keras_resnet.runs import files

if TYPE_CHECKING:
    from keras_resnet.inference.classifier import Classifier

BACKENDS = ("tensorflow", "jax", "torch")
_NOTES = re.compile(rb"[IWE]0000 .*(oneDNN|cuda|cuInit)|WARNING: All log messages before absl")


def configured_backend() -> str:
    """The backend that Keras will use: $KERAS_BACKEND, else keras.json's, else tensorflow."""
    home = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))
    backend = "tensorflow"
    data = files.read_bytes(home / "keras.json") or b""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        backend = str(json.loads(data)["backend"])
    return os.environ.get("KERAS_BACKEND") or backend


def start_keras(needs: str | None = None) -> None:
    """Import Keras quietly, with the backend that a command `needs`, else the user's.

    Raises UserError for a backend that is unknown or not installed.
    """
    configured = configured_backend()
    if configured not in BACKENDS:
        raise UserError(
            f"Keras's backend (KERAS_BACKEND or keras.json) must be one of {', '.join(BACKENDS)}. "
            f"Received: {configured}"
        )
    if time.time() < 315_532_800:  # .keras files are ZIP archives
        raise UserError("the system's clock must be set: its year must be 1980 or later")
    if not (epoch := os.environ.get("SOURCE_DATE_EPOCH", "0")).isdecimal():  # NumPy reads it too
        raise UserError(f"SOURCE_DATE_EPOCH must be a number of seconds. Received: {epoch!r}")
    backend = needs or configured
    if importlib.util.find_spec(backend) is None:
        raise UserError(
            f"this command needs {backend}, which is not installed: pip install {backend}"
            + ("" if needs else ", or name another backend of Keras with KERAS_BACKEND")
        )
    if backend != configured:
        os.environ["KERAS_BACKEND"] = backend
        console.print_line(f"note: this command runs on {needs}, whatever backend is configured")
    # Limits that would end trainings and predictions early.
    for name in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):
        os.environ.pop(name, None)
    with terminal.ending_at_once():
        if backend == "tensorflow":
            _import_tensorflow()
        import keras

    # A user's keras.json may say otherwise; our nets, losses and files are float32 and channels last.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


def load_classifier(model: str | None) -> Classifier:
    """Load the net of a command's --model. An ONNX file needs ONNX Runtime alone: Keras is not imported."""
    from keras_resnet.inference import zoo  # here, as --help must be fast
    from keras_resnet.inference.classifier import Classifier
    from keras_resnet.inference.open import model_file

    path = zoo.resolve(model)
    if not path.is_dir() and path.suffix != ".onnx":
        path = model_file(path)  # refuse another file before Keras is imported, which takes seconds
    console.print_status("loading the net")
    if path.suffix != ".onnx":
        start_keras()
    return Classifier.load(path)


def _import_tensorflow() -> None:
    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # TensorFlow asks for its name, matplotlib writes to it
        tempfile.tempdir = os.sep
        sys.modules.setdefault("matplotlib", None)  # type: ignore[arg-type]
    if platform.machine().lower() in ("x86_64", "amd64"):  # elsewhere it is another library
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # The level of what it writes later.
    show_all = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0"
    with contextlib.nullcontext() if show_all else console.without_lines(_NOTES):
        import tensorflow  # noqa: F401
