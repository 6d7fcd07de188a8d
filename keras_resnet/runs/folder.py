"""The run folder, and the only place that reads or writes its config.json, metrics.csv and results.json.

    <output-dir>/<name>/seed-<k>/
        config.json        every setting, versions, device
        metrics.csv        one row per evaluation
        results.json       written last: a run that has it is finished
        model.keras        float32, raw pixels in, class probabilities out
        checkpoints/       step-00000500.npz: the newest two (checkpoints.py)
        tensorboard/       the same metrics for TensorBoard
        lock               held by the process that trains here (files.py)

What is read is checked against the types below, because a folder may come from anywhere.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec

from keras_resnet.errors import UserError
from keras_resnet.recipes.recipe import MAX_STEPS
from keras_resnet.runs import files

MAX_JSON_BYTES = 1 << 20
MAX_METRICS_BYTES = 1 << 26

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_STEPS)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class Device(TypedDict):
    """What a run trains on."""

    kind: str
    name: str
    count: NotRequired[int]  # where there are several


class RunConfig(TypedDict):
    """config.json: what decides a run, written before its first update."""

    settings: dict[str, bool | int | float | str | None]
    backend: NotRequired[Literal["tensorflow", "jax", "torch"]]  # up to 0.2.0 there was one
    precision: NotRequired[Literal["float32", "mixed_bfloat16", "mixed_float16"]]
    class_names: NotRequired[list[str]]
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

    step: int
    learning_rate: float | None
    train_loss: float | None
    train_error: float | None
    val_loss: float | None
    val_error: float | None
    images_per_second: float | None


COLUMNS = tuple(MetricsRow.__annotations__)


class RunFolder:
    """A run folder's files. Reading raises UserError, naming file and key, where one makes no sense."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def model_path(self) -> Path:
        """Path of the trained net, which need not be there."""
        return self.path / "model.keras"

    def read_config(self) -> RunConfig | None:
        """config.json; None where there is none."""
        return self._read_json("config.json", RunConfig)

    def read_results(self) -> RunResults | None:
        """results.json; None while the run is not finished."""
        return self._read_json("results.json", RunResults)

    def read_metrics(self) -> list[MetricsRow]:
        """The rows of metrics.csv, oldest first; none where there is no file."""
        path = self.path / "metrics.csv"
        data = files.read_bytes(path, MAX_METRICS_BYTES)
        if data is None:
            return []
        try:
            return _rows(data.decode())
        except (ValueError, TypeError, csv.Error) as error:
            raise UserError(
                f"{path} could not be read ({error}); move it or its folder away"
            ) from None

    def begin(self, config: RunConfig | None, rows: Sequence[MetricsRow]) -> None:
        """Write config.json, None for a run that goes on, and metrics.csv up to the checkpoint."""
        if config is not None:
            self.write_config(config)
        self.write_metrics(rows)

    def write_config(self, config: RunConfig) -> None:
        """Write config.json atomically."""
        files.write_json(self.path / "config.json", config)

    def write_results(self, results: RunResults) -> None:
        """Write results.json atomically: from then on the run is finished."""
        files.write_json(self.path / "results.json", results)

    def write_metrics(self, rows: Sequence[MetricsRow]) -> None:
        """Write metrics.csv atomically."""
        files.write_atomic(self.path / "metrics.csv", metrics_csv(rows))

    def _read_json(self, name: str, kind: Any) -> Any:
        path = self.path / name
        data = files.read_bytes(path, MAX_JSON_BYTES)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(
                f"{path} {_what_is_wrong(error)}: it must be a file of this program; move it or its "
                "folder away, or start over with train's --restart"
            ) from None


def _what_is_wrong(error: Exception) -> str:
    """msgspec's message in our words: which key, what was expected, what came."""
    text = str(error).replace("`", "'")
    if not isinstance(error, msgspec.ValidationError):
        return f"could not be read as JSON ({text})"
    if missing := re.fullmatch(r"Object missing required field '(\w+)'", text):
        return f"has no {missing[1]} ({text})"
    if key := re.search(r" - at '\$\.(\w+)", text):
        return f"must have a {key[1]} that can be ({text})"
    return f"must hold a JSON object ({text})"


def refuse_foreign_folder(output: Path) -> None:
    """Raise UserError where writing into a folder could replace files of a run or of an export."""
    for name, kind in (
        ("export.json", "an export"),
        ("config.json", "a run"),
        ("metrics.csv", "a run"),
    ):
        if files.exists(output / name):
            raise UserError(
                f"`output` must not be the folder of {kind}, whose files would be replaced. Received: "
                f"{output}, which holds {name}; name another folder"
            )


def metrics_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of metrics.csv: `COLUMNS`; a value that was not measured stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(text: str) -> list[MetricsRow]:
    rows: list[MetricsRow] = []
    before = 0
    for row in csv.DictReader(io.StringIO(text, newline="")):
        if row.keys() != set(COLUMNS):
            raise ValueError(f"its columns must be {', '.join(COLUMNS)}, with a step in each row")
        values = {key: float(value) if value else None for key, value in row.items()}
        step = values.pop("step")
        if step is None or not step.is_integer() or not before < step <= MAX_STEPS:
            raise ValueError(
                f"step must be an integer that grows, at most {MAX_STEPS}: {row['step']}"
            )
        before = int(step)
        rows.append({"step": before, **values})  # type: ignore[typeddict-item]
    return rows
