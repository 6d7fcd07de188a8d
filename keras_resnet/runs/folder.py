"""The run folder, and the only place that reads or writes its config.json, metrics.csv and results.json.

docs/resuming.md lists its files. What is read is checked against the types below.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec

from keras_resnet.errors import UserError
from keras_resnet.recipes.recipe import MAX_STEPS
from keras_resnet.runs import files

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_STEPS)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Device = dict[str, str | int]  # kind and name, and count where there are several


class RunConfig(TypedDict):
    """config.json: what decides a run, written before its first update."""

    settings: dict[str, bool | int | float | str | None]
    backend: NotRequired[Literal["tensorflow", "jax", "torch"]]  # up to 0.2.0 there was one
    precision: NotRequired[Literal["float32", "mixed_bfloat16", "mixed_float16"]]
    class_names: NotRequired[list[str]]
    content_hash: NotRequired[str]  # of the user's own images
    versions: NotRequired[dict[str, str]]
    git_commit: NotRequired[str | None]
    device: NotRequired[Device]
    onednn: NotRequired[bool]
    command: NotRequired[str]


class RunResults(TypedDict):
    """results.json: what came out; errors in percent."""

    test_error: Percent
    test_loss: NotRequired[float | None]  # None: not finite
    val_error: NotRequired[Percent | None]
    train_error: NotRequired[Percent]
    steps: NotRequired[Count]
    stopped_early: NotRequired[bool]  # by a callback of the user's
    saved_step: NotRequired[Count]  # update of the net that is saved, where that is not the last
    recipe: NotRequired[str]
    seconds: NotRequired[NotNegative]  # of training alone
    images_per_second: NotRequired[NotNegative | None]
    parameters: NotRequired[Count]  # trainable
    model: NotRequired[str]
    depth: NotRequired[int]
    shortcut: NotRequired[str | None]
    dataset: NotRequired[str]
    seed: NotRequired[int]
    backend: NotRequired[str]
    precision: NotRequired[str]
    peak_memory_mib: NotRequired[Count | None]
    device: NotRequired[Device]
    versions: NotRequired[dict[str, str]]
    git_commit: NotRequired[str | None]


class MetricsRow(TypedDict):
    """A row of metrics.csv: errors in percent, None for what was not measured."""

    step: Count
    learning_rate: float | None
    train_loss: float | None
    train_error: float | None
    val_loss: float | None
    val_error: float | None
    images_per_second: float | None


class RunFolder:
    """A run folder's files, written atomically; None is read where there is none.

    Reading raises UserError, naming file and key, where one makes no sense.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def model_path(self) -> Path:
        return self.path / "model.keras"

    def read_config(self) -> RunConfig | None:
        return self._read("config.json", RunConfig)

    def read_results(self) -> RunResults | None:
        return self._read("results.json", RunResults)

    def read_metrics(self) -> list[MetricsRow]:
        """The rows of metrics.csv, oldest first; none where there is no file."""
        return self._read("metrics.csv", list[MetricsRow]) or []

    def write_config(self, config: RunConfig) -> None:
        files.write_json(self.path / "config.json", config)

    def write_results(self, results: RunResults) -> None:
        files.write_json(self.path / "results.json", results)

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv; a value that was not measured stays empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, MetricsRow.__annotations__, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write_atomic(self.path / "metrics.csv", text.getvalue())

    def _read(self, name: str, kind: Any) -> Any:
        data = files.read_bytes(self.path / name)
        if data is None:
            return None
        try:
            if name.endswith(".json"):
                return msgspec.json.decode(data, type=kind)
            rows = csv.DictReader(io.StringIO(data.decode(), newline=""))
            values = [{key: value or None for key, value in row.items()} for row in rows]
            return msgspec.convert(values, kind, strict=False)
        except (ValueError, csv.Error) as error:
            reason = str(error).replace("`", "'")
            raise UserError(
                f"{self.path / name} must be as train writes it ({reason}). If it is another program's, name "
                "another folder; if it is damaged, move it away, or start over with train's --restart"
            ) from None


def refuse_foreign_folder(output: Path) -> None:
    """Raise UserError where `output` is a file, or the folder of a run or of an export."""
    if output.exists() and not output.is_dir():
        raise UserError(f"`output` must be a folder. Received: {output}, which is a file")
    for name in ("export.json", "config.json", "metrics.csv"):
        if os.path.exists(output / name):
            raise UserError(
                "`output` must not be the folder of a run or of an export, whose files would be "
                f"replaced. Received: {output}, which holds {name}; name another folder"
            )
