"""`keras-resnet report experiments/ --output report/`: pictures and tables of runs.

Reads every run at or below the given folders, finished or not, and writes

    figure6.png, figure6.svg    the paper's figure 6: plain and residual nets, error over iterations
    results.md, results.json    test errors, mean +- sample std, beside the published ones
    index.html                  all of it on one self-contained page, with the best run's mistakes

A row averages only over runs that differ in nothing but the seed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.report import page, plots
from keras_resnet.report.rows import best_run, find, group, read, sections
from keras_resnet.report.tables import (
    NOTE,
    as_json,
    markdown,
    origins,
    run_table,
    summary_text,
    table,
)
from keras_resnet.runs import files
from keras_resnet.runs.folder import refuse_foreign_folder

CURVES = (
    "Thin dashed: training error (augmented images, mean over the updates since the last "
    "evaluation); bold: validation error. Several seeds: their mean, and a band from the lowest to "
    "the highest. Vertical lines: the learning rate drops."
)


def build(paths: Sequence[str | Path], output: str | Path, data_dir: str | None = None) -> Path:
    """Write the report and return the path of its page.

    Args:
        paths: folders in which run folders are looked for, however deep.
        output: folder that is written to; files of an earlier report are replaced, each atomically.
        data_dir: folder of tensorflow_datasets for the images; nothing is downloaded.

    Raises:
        UserError: if there are no runs, one cannot be read, matplotlib is missing or `output`
            cannot be written to.
    """
    plots.require_matplotlib()
    found = [read(folder) for folder in find(paths)]
    rows, left_out = group(found)
    output = Path(output)
    refuse_foreign_folder(output)
    try:
        files.make_folder(output)
    except UserError:
        raise UserError(
            f"`output` must be a folder that can be written to. Received: {output}"
        ) from None
    summary = summary_text(rows, left_out)
    console.print_line(summary)
    best = best_run(rows)
    wrong = page.mistakes(best, data_dir)
    if isinstance(wrong, str):
        console.print_line(f"no wrongly classified images on the page: {wrong}")

    def figure(heading: str, draw: Any, description: str, caption: str) -> tuple:
        wide, narrow = (plots.picture(draw, rows, "svg", columns) for columns in (2, 1))
        return heading, wide, narrow, description, caption

    shown = plots.MAX_SECTIONS
    hidden = list(sections(rows))[shown:]
    caption = CURVES + (f" Not drawn, for lack of room: {'; '.join(hidden)}." if hidden else "")
    names, cells = table(rows)
    html = page.page(
        summary=summary,
        figures=[
            figure("Error over iterations (figure 6 of the paper)", plots.figure6,
                   "Training and validation error over iterations; left plain, right residual nets",
                   caption),
            figure("Learning rate and throughput", plots.progress,
                   "Learning rate and images per second over iterations",
                   "As recorded at evaluations: a shorter warm-up does not show."),
        ],
        tables=[
            ("Test error", names, cells, NOTE),
            ("How the rows were made", *origins(rows), ""),
            ("Runs", *run_table(rows, left_out), ""),
        ],
        best=best,
        wrong=wrong,
    )  # fmt: skip
    written: dict[str, bytes | str] = {
        "figure6.png": plots.picture(plots.figure6, rows, "png"),
        "figure6.svg": plots.picture(plots.figure6, rows, "svg"),
        "results.md": markdown(rows, summary),
        "results.json": json.dumps(as_json(rows, left_out, best), indent=2) + "\n",
        "index.html": html,
    }
    for name, data in written.items():
        files.write_atomic(output / name, data)
    return output / "index.html"
