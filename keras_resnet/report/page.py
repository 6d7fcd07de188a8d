"""The report's page: one HTML file that asks for nothing from outside, with the net's mistakes."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from keras_resnet.data import datasets
from keras_resnet.errors import UserError
from keras_resnet.inference.classifier import Classifier
from keras_resnet.report.rows import Run

MAX_MISTAKES = 45
SHORT = ' class="short"'  # a cell that is not wrapped


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """Wrongly classified test images, the surest first: uint8 `(n, 32, 32, 3)`, with captions."""

    images: np.ndarray
    captions: list[str]
    count: int
    total: int


def mistakes(run: Run | None, data_dir: str | None) -> Mistakes | str:
    """Classify the test images with the run's saved net and collect those it gets wrong.

    Args:
        run: the best run by validation error, or None.
        data_dir: folder of tensorflow_datasets; default the run's own where it is here, else
            `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`. Nothing is downloaded.

    Returns:
        The mistakes, or the reason why there are none to show.
    """
    if run is None:
        return "no finished run has a validation error to choose the best run by."
    path, name = run.folder / "model.keras", run.config.dataset
    if not path.is_file():
        return f"the best run's net is not here: {path} does not exist."
    folder = datasets.folder_of(name, data_dir, recorded=run.config.data_dir)
    if name != "synthetic" and not datasets.is_in(folder, name):
        return f"{name} is not in {folder}: name the folder that holds it with --data-dir."
    try:
        classifier = Classifier.load(path)
        data = datasets.load(name, str(folder))
        if len(classifier.class_names) != len(data.class_names):
            return f"{path} does not give {len(data.class_names)} class probabilities."
        probabilities = classifier.predict(data.test_images)
    except UserError as error:
        return f"{path} could not be used: {error}."
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != data.test_labels)
    sure = probabilities[wrong, predicted[wrong]]
    shown = wrong[np.argsort(-sure, kind="stable")[:MAX_MISTAKES]]
    said = [data.class_names[label] for label in predicted[shown]]
    true = [data.class_names[label] for label in data.test_labels[shown]]
    captions = [
        f"{s} {100 * p:.0f}\u00a0%\nis {t}"
        for s, p, t in zip(said, probabilities[shown].max(axis=1), true, strict=True)
    ]
    return Mistakes(data.test_images[shown], captions, len(wrong), len(data.test_labels))


def page(
    *,
    summary: str,
    figures: Sequence[tuple[str, bytes, bytes, str, str]],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]], str]],
    best: Run | None,
    wrong: Mistakes | str,
) -> str:
    """The page's HTML.

    Args:
        summary: a sentence for below the title.
        figures: (heading, SVG for wide screens, SVG for narrow ones, description, caption).
        tables: (heading, column names, rows, note).
        best: the run whose mistakes are shown.
        wrong: its mistakes, or why there are none.
    """
    first, *rest = [_figure(*figure) for figure in figures]
    main, *details = [_table(*table) for table in tables]
    body = "\n".join([first, main, *rest, _mistakes(best, wrong), *details])
    return f"{_HEAD}<p>{escape(summary)}</p>\n{body}\n</main></body></html>\n"


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _figure(heading: str, wide: bytes, narrow: bytes, description: str, caption: str) -> str:
    return (
        f"<section><h2>{escape(heading)}</h2><figure><picture>"
        f'<source media="(max-width: 700px)" srcset="{_uri(narrow, "svg+xml")}">'
        f'<img alt="{escape(description)}" src="{_uri(wide, "svg+xml")}"></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure></section>"
    )


def _table(heading: str, names: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = "\n".join(
        "<tr>"
        + "".join(
            f'<td{SHORT * (len(cell) <= 16)} data-label="{escape(name)}">'
            f"{escape(cell).replace('/', '/<wbr>')}</td>"
            for name, cell in zip(names, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<section><h2>{escape(heading)}</h2><div class="scroll"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>\n{lines}\n</tbody></table></div><p>{escape(note)}</p></section>"
    )


def _mistakes(run: Run | None, wrong: Mistakes | str) -> str:
    heading = "<section><h2>Wrongly classified test images</h2>"
    text = ""
    if run is not None:
        text = (
            f"The best run by validation error ({run.number('val_error'):.2f} %; the test set "
            f"chooses nothing) is {run.folder}. "
        )
    if run is None or isinstance(wrong, str):
        return f"{heading}<p>{escape(text)}No images: {escape(str(wrong))}</p></section>"
    text += (
        f"Its saved net gets {wrong.count:,} of {wrong.total:,} test images wrong "
        f"({100 * wrong.count / wrong.total:.2f} %; its results.json says "
        f"{run.number('test_error'):.2f} %). These are the {len(wrong.captions)} mistakes it is "
        "surest of: what it says and how sure it is, and what the image is."
    )
    cells = "\n".join(
        f'<figure><img alt="{escape(caption)}" src="{_uri(_png(image), "png")}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for image, caption in zip(wrong.images, wrong.captions, strict=True)
    )
    return f'{heading}<p>{escape(text)}</p><div class="grid">\n{cells}\n</div></section>'


# Without the version of matplotlib: the same image gives the same bytes.
_NO_SOFTWARE: dict[str, Any] = {"Software": None}


def _png(image: np.ndarray) -> bytes:
    from matplotlib.image import imsave

    data = io.BytesIO()
    imsave(data, image, format="png", metadata=_NO_SOFTWARE)
    return data.getvalue()


# The policy makes sure that the page stays self-contained, whatever a run folder's texts hold.
_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light">
<title>CIFAR ResNets: report</title>
<style>
body { margin: 0; background: #fff; color: #1a1a1a; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.7rem; margin: .3em 0; }
h2 { font-size: 1.25rem; margin: 2em 0 .5em; }
figure { margin: 0; }
img { max-width: 100%; height: auto; }
figcaption, section > p { color: #444; font-size: .9rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 9px 5px 0; border-bottom: 1px solid #ddd; }
th, td { text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #888; }
td { overflow-wrap: break-word; min-width: 6.5em; }
.short { white-space: nowrap; min-width: 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 14px; }
.grid img { width: 100%; display: block; }
.grid figcaption { white-space: pre-line; font-size: .78rem; line-height: 1.3; margin-top: 3px; }
@media (max-width: 700px) {
  thead { display: none; }
  table, tbody, tr, td { display: block; min-width: 0; white-space: normal; }
  td { overflow-wrap: anywhere; }
  tr { border-bottom: 2px solid #888; padding: 8px 0; }
  td { border: 0; padding: 1px 0 1px 9.5em; position: relative; min-height: 1.5em; }
  td::before { content: attr(data-label); position: absolute; left: 0; width: 9em; color: #555; }
  td:first-child { font-weight: bold; }
}
</style></head><body><main>
<h1>CIFAR ResNets: report</h1>
"""
