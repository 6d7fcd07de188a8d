"""`keras-resnet report`: figure, tables and a page of runs. docs/results.md says what is in which file.

The page asks for nothing from outside: its policy sees to that, whatever the texts of a run folder hold.
"""

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np
import PIL.Image

from keras_resnet import console
from keras_resnet.data import datasets
from keras_resnet.errors import UserError
from keras_resnet.report import plots, tables
from keras_resnet.report.rows import Record, choose_best, group, read_record
from keras_resnet.runs import files
from keras_resnet.runs.folder import refuse_foreign_folder

MAX_IMAGES = 45
PAGE = Template(Path(__file__).with_name("page.html").read_text("utf-8"))
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
        mistakes = _mistakes(best, data_dir)
    except UserError as error:
        mistakes = f"<p>No images: {escape(str(error))}.</p>"
        console.print_line(f"no wrongly classified images on the page: {error}")
    svg = plots.draw_figure6(rows, "svg")
    picture = _image(svg, "svg+xml", "Error over the updates; plain nets left, residual nets right")
    picture = f'<div class="scroll">{picture}</div><p>{CAPTION}</p>'
    main, runs = tables.make_table(rows), tables.make_run_table(rows)
    sections = [
        ("Error over the updates (figure 6 of the paper)", picture),
        ("Test error", f"{_table(main)}<p>{tables.NOTE}</p>"),
        ("Wrongly classified test images", mistakes),
        ("How each run was made", _table(runs)),
    ]
    body = "\n".join(f"<h2>{escape(heading)}</h2>{text}" for heading, text in sections)
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
        "index.html": PAGE.substitute(summary=escape(summary), body=body),
    }
    for name, data in written.items():
        files.write_atomic(output / name, data)
    return output / "index.html"


def _image(data: bytes, kind: str, description: str) -> str:
    """A picture as HTML; `kind` is `"png"` or `"svg+xml"`."""
    content = base64.b64encode(data).decode()
    return f'<img alt="{escape(description)}" src="data:image/{kind};base64,{content}">'


def _table(table: tables.Table) -> str:
    """A table as HTML."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table[0])
    lines = "\n".join(f"<tr>{''.join(map(_cell, line.values()))}</tr>" for line in table)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{lines}\n'
        "</tbody></table></div>"
    )


def _cell(text: str) -> str:
    text = escape(text) if len(text) > 16 else escape(text).replace(" ", "\u00a0")  # on one line
    return f"<td>{text.replace('/', '/<wbr>')}</td>"


def _mistakes(best: Record, data_dir: str | None) -> str:
    """The wrongly classified test images of highest confidence of a finished run, as HTML.

    Raises UserError where the net or the data is missing or damaged.
    """
    from keras_resnet.inference.classifier import Classifier

    dataset, path = best.run.config.dataset, best.run.folder.model_path
    if not path.is_file():
        raise UserError(f"the best run's net is missing: {path} does not exist")
    folder = datasets.folder_of(dataset, data_dir, recorded=best.run.config.data_dir)
    if dataset != "synthetic" and not datasets.is_in(folder, dataset):
        raise UserError(f"{dataset} is not in {folder}: name its folder with --data-dir")
    classifier = Classifier.load(path)
    data = datasets.load_for_net(dataset, str(folder), classifier.image_size)
    data.check_classes(classifier.class_names)
    probabilities = classifier.predict(data.test_images)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != data.test_labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")[:MAX_IMAGES]]
    total = len(data.test_labels)
    text = (
        f"The best run by validation error ({best.results['val_error']:.2f} %, not by test error) "
        f"is {best.run.folder.path}. Its net classifies {len(wrong):,} of {total:,} test images wrongly "
        f"({100 * len(wrong) / total:.2f} %; its results.json says {best.results['test_error']:.2f} %). "
        f"These are the {len(shown)} of highest confidence: predicted class, confidence and true class."
    )
    figures = []
    for k in shown:
        named = data.class_names[predicted[k]], data.class_names[data.test_labels[k]]
        caption = f"{named[0]} {100 * confidence[k]:.0f}\u00a0%\nis {named[1]}"
        png = io.BytesIO()
        PIL.Image.fromarray(data.test_images[k]).save(png, "png")
        picture = _image(png.getvalue(), "png", caption)
        figures.append(f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>\n")
    return f'<p>{escape(text)}</p><div class="grid">\n{"".join(figures)}</div>'
