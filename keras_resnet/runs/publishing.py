"""What of a run may be published: everything but the folders of the machine that made it."""

from __future__ import annotations

import shlex
from pathlib import Path

from keras_resnet.runs.folder import RunConfig

FOLDER_FLAGS = ("--data-dir", "--output-dir", "--output", "--runs-dir")


def without_folders(config: RunConfig) -> RunConfig:
    """The same, as it may be published: without the folders of the machine that made it."""
    settings = {k: v for k, v in config["settings"].items() if k not in ("data_dir", "output_dir")}
    published: RunConfig = {**config, "settings": settings}
    if "command" in config:
        published["command"] = command_without_folders(config["command"])
    return published


def command_without_folders(command: str) -> str:
    """A command line without the flags that name folders, and with scripts by their names alone."""
    kept: list[str] = []
    try:
        words = iter(shlex.split(command))
    except ValueError:  # written by hand: a quotation that does not end
        return ""
    for word in words:
        if word in FOLDER_FLAGS:
            next(words, None)
        elif not word.startswith(tuple(f"{flag}=" for flag in FOLDER_FLAGS)):
            is_script = word.endswith(".py") or word.endswith("keras-resnet")
            kept.append(Path(word).name if is_script and Path(word).is_absolute() else word)
    return shlex.join(kept)
