"""The report's tables, as cells, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_resnet.report.rows import Record, Row

Table = tuple[list[str], list[list[str]]]  # names of the columns, and the cells of each line

NOTE = (
    "Errors in percent; ± is the sample standard deviation over seeds, and only finished runs count. "
    "A row averages over runs that differ in nothing but the seed. Training error: of augmented "
    "images, during the last updates. He et al.: arXiv:1512.03385, table 6; PyTorch: "
    "github.com/nabla0001/resnet, 5 runs. Both trained for 64,000 updates; they stand beside unchanged "
    "recipes on CIFAR-10, whatever the updates of these. Hours are those of one run."
)


def table(rows: Sequence[Row]) -> Table:
    """The main table: one line per row."""
    names = ["net", "recipe", "updates", "test error (%)", "runs", "validation error (%)",
             "training error (%)", "He et al. (%)", "PyTorch (%)", "parameters", "hours", "data",
             "precision"]  # fmt: skip
    cells = [
        [
            row.name,
            row.recipe_text,
            f"{row.recipe.steps:,}",
            error_text(row),
            runs_text(row),
            _text(row.mean("val_error"), ".2f"),
            _text(row.mean("train_error"), ".2f"),
            *(reference or "-" for reference in row.references),
            _text(row.mean("parameters"), ",.0f"),
            _text(_hours(row.mean("seconds")), ".2f"),
            row.config.dataset,
            row.precision,
        ]
        for row in rows
    ]
    return names, cells


def error_text(row: Row) -> str:
    """E.g. `"8.61 ± 0.17"`, `"8.61"` for one run, `"unfinished"` for none."""
    if not row.finished:
        return "unfinished"
    return _text(row.mean("test_error"), ".2f") + ("" if row.std is None else f" ± {row.std:.2f}")


def runs_text(row: Row) -> str:
    """How many runs count, and how far the others are: `"2; seed 3 unfinished at 31,500"`."""
    parts = [str(len(row.finished))] if row.finished else []
    parts += [f"seed {r.run.config.seed} unfinished at {r.step:,}" for r in row.unfinished]
    return "; ".join(parts)


def run_table(rows: Sequence[Row], repeated: Sequence[Record]) -> Table:
    """How each run was made: one line per run."""
    names = ["run", "test error (%)", "hours", "images/s", "command", "commit", "device",
             "versions"]  # fmt: skip
    cells = []
    for record in [*(record for row in rows for record in row.records), *repeated]:
        error = _text(record.number("test_error"), ".2f")
        if record in repeated:
            error = "left out: same settings and seed as another run"
        elif record.results is None:
            error = f"unfinished at {record.step:,}"
        saved = record.saved
        commit = saved.get("git_commit") or "-"
        cells.append([
            str(record.run.folder.path), error, _text(_hours(record.number("seconds")), ".2f"),
            _text(record.number("images_per_second"), ",.0f"), saved.get("command", "-"),
            commit[:10] + "+changes" * commit.endswith("+changes"),
            saved["device"]["name"] if "device" in saved else "-",
            ", ".join(map(" ".join, saved.get("versions", {}).items())) or "-",
        ])  # fmt: skip
    return names, cells


def markdown(table: Table) -> str:
    """A table as Markdown."""
    names, cells = table
    lines = [names, ["---"] * len(names), *cells]
    return "".join(f"| {' | '.join(map(_markdown_cell, line))} |\n" for line in lines)


def as_json(rows: Sequence[Row], repeated: Sequence[Record]) -> dict[str, Any]:
    """The content of results.json: what the tables show, not rounded."""

    def member(record: Record) -> dict[str, Any]:
        return {
            "folder": str(record.run.folder.path),
            "seed": record.run.config.seed,
            "step": record.step,
            "command": record.saved.get("command"),
            "git_commit": record.saved.get("git_commit"),
            **(record.results or {}),
        }

    def content(row: Row) -> dict[str, Any]:
        paper, pytorch = row.references
        return {
            **row.settings,
            "recipe_text": row.recipe_text,
            "runs": len(row.finished),
            "unfinished": len(row.unfinished),
            "test_error_mean": row.mean("test_error"),
            "test_error_std": row.std,
            "val_error_mean": row.mean("val_error"),
            "train_error_mean": row.mean("train_error"),
            "he_et_al": paper,
            "pytorch_reproduction": pytorch,
            "parameters": row.mean("parameters"),
            "hours": _hours(row.mean("seconds")),
            "members": [member(record) for record in row.records],
        }

    left_out = [member(record) for record in repeated]
    return {"note": NOTE, "rows": [content(row) for row in rows], "left_out": left_out}


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 3600


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _markdown_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
