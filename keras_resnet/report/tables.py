"""The report's tables, as cells, Markdown and JSON."""

from collections.abc import Sequence
from typing import Any

from keras_resnet.report.rows import Row

Table = list[dict[str, str]]  # per line, column -> cell

NOTE = (
    "Errors in percent; ± is the sample standard deviation over seeds, and only finished runs count. "
    "A row averages over runs that differ in nothing but the seed. Training error: of augmented "
    "images, in the updates before the net was saved. He et al.: arXiv:1512.03385, table 6; PyTorch: "
    "github.com/nabla0001/resnet, 5 runs. Both trained for 64,000 updates; they are given for "
    "every unchanged recipe on CIFAR-10, however many its updates. Hours are those of one run."
)


def make_table(rows: Sequence[Row]) -> Table:
    """The main table: one line per row."""
    return [
        {
            "net": row.name,
            "recipe": row.recipe_text,
            "updates": f"{row.recipe.steps:,}",
            "test error (%)": _error(row),
            "runs": _runs(row),
            "validation error (%)": _text(row.mean("val_error"), ".2f"),
            "training error (%)": _text(row.mean("train_error"), ".2f"),
            "He et al. (%)": row.references[0] or "-",
            "PyTorch (%)": row.references[1] or "-",
            "parameters": _text(row.mean("parameters"), ",.0f"),
            "hours": _text(row.mean("seconds"), ".2f", 3600),
            "data": row.config.dataset,
            "precision": row.precision,
        }
        for row in rows
    ]


def make_run_table(rows: Sequence[Row]) -> Table:
    """How the runs of the rows were made: one line per run."""
    return [
        {
            "run": str(record.run.folder.path),
            "test error (%)": _error(Row([record])),
            "hours": _text(record.results.get("seconds"), ".2f", 3600),
            "images/s": _text(record.results.get("images_per_second"), ",.0f"),
            "command": record.saved.get("command", "-"),
            "commit": record.saved.get("git_commit") or "-",
            "device": str(record.saved.get("device", {}).get("name", "-")),
            "versions": ", ".join(map(" ".join, record.saved.get("versions", {}).items())) or "-",
        }
        for row in rows
        for record in row.records
    ]


def to_markdown(table: Table) -> str:
    """A table as Markdown."""
    lines = [list(table[0]), ["---"] * len(table[0]), *(line.values() for line in table)]
    return "".join(f"| {' | '.join(map(_markdown_cell, line))} |\n" for line in lines)


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each row's settings and numbers, not rounded, and its runs with their results.json."""
    means = ("test_error", "val_error", "train_error", "parameters", "seconds")
    made = ("command", "git_commit", "device", "versions")
    return [
        {
            **row.settings,
            "recipe_text": row.recipe_text,
            "runs": len(row.finished),
            "unfinished": len(row.unfinished),
            **{f"{name}_mean": row.mean(name) for name in means},
            "test_error_std": row.std,
            "he_et_al": row.references[0],
            "pytorch_reproduction": row.references[1],
            "members": [
                {
                    "folder": str(record.run.folder.path),
                    "seed": record.run.config.seed,
                    "step": record.step,
                    **{key: record.saved.get(key) for key in made},
                    **record.results,
                }
                for record in row.records
            ],
        }
        for row in rows
    ]


def _error(row: Row) -> str:
    """E.g. `"8.61 ± 0.17"`, `"8.61"` for one run, `"unfinished"` for none."""
    if not row.finished:
        return "unfinished"
    return _text(row.mean("test_error"), ".2f") + ("" if row.std is None else f" ± {row.std:.2f}")


def _runs(row: Row) -> str:
    """How many runs count, and how far the others are: `"2; seed 3 unfinished at 31,500"`."""
    parts = [str(len(row.finished))] if row.finished else []
    parts += [f"seed {r.run.config.seed} unfinished at {r.step:,}" for r in row.unfinished]
    return "; ".join(parts)


def _text(value: float | None, form: str, divisor: float = 1) -> str:
    return "-" if value is None else format(value / divisor, form)


def _markdown_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
