"""Where a run lies, and what was begun there. Without Keras, which a sweep does not start."""

from __future__ import annotations

import os
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.runs import files, resume
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunConfig, RunFolder, RunResults


def experiment_folder(config: TrainConfig) -> Path:
    """The folder of an experiment's runs."""
    return Path(os.path.expanduser(config.output_dir)) / config.experiment


def begun_with(
    config: TrainConfig, folder: RunFolder
) -> tuple[RunConfig | None, RunResults | None]:
    """config.json and results.json of the run in a folder; None for what is not there.

    Raises:
        UserError: where it has other settings than those asked for, or files that make no sense.
    """
    old = folder.read_config() if files.exists(folder.path / "config.json") else None
    results = folder.read_results()
    if old is None:
        if results is not None:
            raise UserError(
                f"{folder.path} has results.json but no config.json, which must be a file of this "
                "program; use another `name`, or `restart` to move the run aside and start over"
            )
        return None, None
    if "precision" not in old:
        raise UserError(
            f"{folder.path / 'config.json'} has no precision: it must be a file of this program; use "
            "another `name`, or `restart` to move the run aside and start over"
        )
    different = []
    if config.precision not in ("auto", old["precision"]):
        different.append(f"`precision` {old['precision']} there, {config.precision} now")
    different += resume.differences(old["settings"], config.settings())
    refuse_other_settings(folder.path, different)
    return old, results


def refuse_other_settings(path: Path, different: list[str]) -> None:
    """Raise UserError where a run was begun with other settings than those asked for."""
    if different:
        raise UserError(
            f"{path} holds a run with other settings: {'; '.join(different)}. Give the same "
            "settings to resume it, another `name`, or `restart` to move it aside and start over"
        )
