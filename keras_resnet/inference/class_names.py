"""The names of a net's classes, from the metadata of an ONNX file or the files beside a model."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Sequence
from pathlib import Path

from keras_resnet.console import printable
from keras_resnet.errors import UserError
from keras_resnet.runs import files
from keras_resnet.runs.folder import RunFolder


def parse_names(text: str, path: Path) -> tuple[str, ...]:
    """Names from `{0: 'airplane', 1: ...}`, the form that Ultralytics began; JSON fits it too."""
    with contextlib.suppress(SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        value = ast.literal_eval(text.strip())
        value = value if isinstance(value, dict) else dict(enumerate(value))
        by_index = {int(k): v for k, v in value.items()}
        if by_index and sorted(by_index) == [*range(len(by_index))]:
            return tuple(printable(by_index[k]) for k in sorted(by_index))
    raise UserError(f"{path}: metadata 'names' must be {{0: name, 1: name, ...}}")


def names_beside(path: Path, classes: int) -> tuple[str, ...] | None:
    """Names from labels.txt (one per line) or a run's config.json in the model's folder."""
    for file in (path.parent / "labels.txt", path.parent / "config.json"):
        names: Sequence[str] | None = None
        with contextlib.suppress(UserError, ValueError):  # a file of another program
            if file.suffix == ".txt":
                names = (files.read_bytes(file) or b"").decode().splitlines()
            elif config := RunFolder(path.parent).read_config():
                names = config.get("class_names")
        if names and len(names) != classes:
            raise UserError(
                f"{file} must name the {classes} classes of {path.name}: mend or move it"
            )
        if names:
            return tuple(map(printable, names))
    return None
