"""`keras-resnet report`: figure, tables and a page of runs. docs/results.md says what is in which file."""

import html
import json
from collections.abc import Sequence
from pathlib import Path

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.report import page, plots, tables
from keras_resnet.report.rows import choose_best, group, read_record
from keras_resnet.runs import files
from keras_resnet.runs.folder import refuse_foreign_folder

CAPTION = (
    "Bold: validation error. Thin and dashed: training error (augmented images, mean over the updates "
    "since the evaluation before). Several seeds: their mean, and a band from the lowest to the "
    "highest. Below: the learning rate of the recipe."
)


def build(folders: Sequence[Path], output: Path, data_dir: str | None = None) -> Path:
    """Write the report of the run folders that `find_runs` found, and return the path of its page.

    Files of an earlier report are replaced, each atomically. `data_dir` is the folder of tensorflow_datasets
    for the images; nothing is downloaded. Raises UserError where a run cannot be read, or `output` cannot be
    written.
    """
    rows, repeated = group(map(read_record, folders))
    refuse_foreign_folder(output)
    others = [n for n in ("index.html", "results.md", "results.json") if (output / n).exists()]
    if others and not (output / "figure6.svg").exists():
        raise UserError(
            f"`output` must be a new folder or one of a report. Received: {output}, whose {others[0]} would "
            "be replaced; name another"
        )
    total, finished = sum(len(r.records) for r in rows), sum(len(r.finished) for r in rows)
    summary = f"Runs: {total}, finished: {finished}, rows of the table: {len(rows)}."
    left_out = [str(record.run.folder.path) for record in repeated]
    if left_out:
        summary += f" Left out, as they repeat another's settings and seed: {', '.join(left_out)}."
    console.print_line(summary)
    best = choose_best(rows)
    try:
        if best is None:
            raise UserError("no finished run has a validation error to choose the best run by")
        mistakes = page.render_mistakes(best, data_dir)
    except UserError as error:
        mistakes = f"<p>No images: {html.escape(str(error))}.</p>"
        console.print_line(f"no wrongly classified images on the page: {error}")
    svg = plots.draw_figure6(rows, "svg")
    picture = page.render_image(
        svg, "svg+xml", "Error over the updates; plain nets left, residual nets right"
    )
    picture = f'<div class="scroll">{picture}</div><p>{CAPTION}</p>'
    main, runs = tables.make_table(rows), tables.make_run_table(rows)
    sections = [
        ("Error over the updates (figure 6 of the paper)", picture),
        ("Test error", f"{page.render_table(main)}<p>{tables.NOTE}</p>"),
        ("Wrongly classified test images", mistakes),
        ("How each run was made", page.render_table(runs)),
    ]
    content = {
        "note": tables.NOTE,
        "rows": tables.to_json(rows),
        "left_out": left_out,
        "best_by_validation_error": str(best.run.folder.path) if best else None,
    }
    text = f"# Results\n\n{summary}\n\n{tables.to_markdown(main)}\n{tables.NOTE}\n\n"
    text += f"## How each run was made\n\n{tables.to_markdown(runs)}"
    written: dict[str, bytes | str] = {
        "figure6.png": plots.draw_figure6(rows, "png"),
        "figure6.svg": svg,
        "results.md": text,
        "results.json": json.dumps(content, indent=2) + "\n",
        "index.html": page.render_page(summary, sections),
    }
    for name, data in written.items():
        files.write_atomic(output / name, data)
    return output / "index.html"
