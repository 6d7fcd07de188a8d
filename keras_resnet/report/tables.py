"""The report's tables, as cells, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_resnet.report.rows import Row, Run

NOTE = (
    "Test error in percent; ± is the sample standard deviation over seeds, and only finished runs "
    "count. A row averages over runs that differ in nothing but the seed. He et al.: "
    "arXiv:1512.03385, table 6; PyTorch: github.com/nabla0001/resnet, 5 runs. Both "
    "trained on CIFAR-10 for 64,000 updates; they stand beside the paper's recipe and beside fast at "
    "their own number of updates, and other rows show a dash. Hours are of one run. Other settings: "
    "the recipe, if it is not the paper's, and what differs from it."
)


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Column names and cells of the main table."""
    names = ["model", "shortcut", "test error (%)", "runs", "He et al. (%)", "PyTorch (%)",
             "parameters", "steps", "hours", "dataset", "precision", "other settings"]  # fmt: skip
    cells = []
    for row in rows:
        key, references = row.key, row.references
        steps = f"{key['steps']:,}" + ("" if row.full_schedule else " (scaled)")
        cells.append([
            row.name, _dash(key["shortcut"]), error_text(row), runs_text(row), _dash(references[0]),
            _dash(references[1]), _number(row.mean("parameters"), ",.0f"), steps,
            _number(_hours(row.mean("seconds")), ".2f"), key["dataset"], key["precision"],
            _dash(row.recipe),
        ])  # fmt: skip
    return names, cells


def error_text(row: Row) -> str:
    """E.g. `"8.61 ± 0.17"`, `"8.61"` for one run, `"unfinished"` for none."""
    mean, std = row.mean("test_error"), row.std
    if mean is None:
        return "unfinished"
    return f"{mean:.2f}" + (f" ± {std:.2f}" if std is not None else "")


def runs_text(row: Row) -> str:
    """How many runs count, and how far the others are: `"2; seed 3 unfinished at step 31,500"`."""
    parts = [str(len(row.finished))] if row.finished else []
    parts += [f"seed {run.config.seed} unfinished at step {run.step:,}" for run in row.unfinished]
    return "; ".join(parts)


def origins(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Column names and cells of the table of seeds, versions and commits."""
    names = ["model", "steps", "dataset", "seeds", "versions", "commits", "devices"]
    cells = [
        [
            row.name,
            f"{row.key['steps']:,}",
            row.key["dataset"],
            ", ".join(str(run.config.seed) for run in row.runs),
            _dash(", ".join(f"{name} {' / '.join(v)}" for name, v in _versions(row).items())),
            ", ".join(_unique(_short(run.commit) for run in row.runs)),
            ", ".join(_unique(run.device for run in row.runs)),
        ]
        for row in rows
    ]
    return names, cells


def run_table(rows: Sequence[Row], left_out: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Column names and cells of the table of single runs."""
    names = ["run", "test error (%)", "validation error (%)", "hours", "images/s", "command"]
    cells = []
    for run in [*(run for row in rows for run in row.runs), *left_out]:
        state = "" if run.results is not None else f"unfinished at step {run.step:,}"
        if run in left_out:
            state = "left out: same settings and seed as another run"
        cells.append([
            str(run.folder), state or _number(run.number("test_error"), ".2f"),
            _number(run.number("val_error"), ".2f"), _number(_hours(run.number("seconds")), ".2f"),
            _number(run.number("images_per_second"), ",.0f"), str(run.saved.get("command") or "-"),
        ])  # fmt: skip
    return names, cells


def markdown(rows: Sequence[Row], summary: str) -> str:
    """The text of results.md."""
    parts = [f"# Results\n\n{_cell(summary)}\n"]
    for names, cells in (table(rows), origins(rows)):
        lines = [names, ["---"] * len(names), *cells]
        parts.append("".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines))
    parts.insert(2, f"{NOTE}\n\n## How the rows were made\n")
    return "\n".join(parts)


def as_json(rows: Sequence[Row], left_out: Sequence[Run], best: Run | None) -> dict[str, Any]:
    """The content of results.json: what the tables show, unrounded."""

    def one(run: Run) -> dict[str, Any]:
        numbers = ("test_error", "val_error", "train_error", "seconds", "images_per_second")
        return {
            "folder": str(run.folder), "seed": run.config.seed, "finished": run.results is not None,
            "step": run.step, **{name: run.number(name) for name in numbers}, "commit": run.commit,
            "device": run.device, "command": run.saved.get("command"),
        }  # fmt: skip

    return {
        "note": NOTE,
        "rows": [
            {
                **row.key, "other_settings": row.recipe, "scaled_schedule": not row.full_schedule,
                "parameters": row.mean("parameters"), "runs": len(row.finished),
                "unfinished": len(row.unfinished), "test_error_mean": row.mean("test_error"),
                "test_error_std": row.std, "he_et_al": row.references[0],
                "pytorch_reproduction": row.references[1], "hours": _hours(row.mean("seconds")),
                "seeds": [run.config.seed for run in row.runs], "versions": _versions(row),
                "commits": _unique(run.commit for run in row.runs),
                "members": [one(run) for run in row.runs],
            }
            for row in rows
        ],
        "left_out": [one(run) for run in left_out],
        "best_by_validation_error": str(best.folder) if best else None,
    }  # fmt: skip


def summary_text(rows: Sequence[Row], left_out: Sequence[Run]) -> str:
    finished = sum(len(row.finished) for row in rows)
    unfinished = sum(len(row.unfinished) for row in rows)
    total = finished + unfinished
    text = f"{total} run{'s' * (total > 1)} ({finished} finished) of {len(rows)} kind"
    text += f"{'s' * (len(rows) > 1)}."
    if left_out:
        folders = ", ".join(str(run.folder) for run in left_out)
        text += f" Left out, for they repeat the settings and the seed of another run: {folders}."
    return text


def _versions(row: Row) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for run in row.runs:
        versions = run.saved.get("versions")
        for name, version in (versions if isinstance(versions, dict) else {}).items():
            found[name] = _unique([*found.get(name, []), str(version)])
    return found


def _unique(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _short(commit: str) -> str:
    name, plus, changes = commit.partition("+")
    return name[:10] + plus + changes


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 3600


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _dash(text: str | None) -> str:
    return text or "-"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
