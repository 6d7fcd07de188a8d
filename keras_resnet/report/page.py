"""The report's page: one HTML file that asks for nothing from outside."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np
import PIL.Image

from keras_resnet.data import datasets
from keras_resnet.errors import UserError
from keras_resnet.report.rows import Record
from keras_resnet.report.tables import Table

MAX_IMAGES = 45
_PAGE = Template(Path(__file__).with_suffix(".html").read_text("utf-8"))


def render_page(summary: str, sections: Sequence[tuple[str, str]]) -> str:
    """The page: a title, the summary, and sections of (heading, HTML).

    Its policy keeps it self-contained, whatever the texts of a run folder hold.
    """
    body = "\n".join(f"<h2>{escape(heading)}</h2>{content}" for heading, content in sections)
    return _PAGE.substitute(summary=escape(summary), body=body)


def render_image(data: bytes, kind: str, description: str) -> str:
    """A picture as HTML; `kind` is `"png"` or `"svg+xml"`."""
    content = base64.b64encode(data).decode()
    return f'<img alt="{escape(description)}" src="data:image/{kind};base64,{content}">'


def render_table(table: Table) -> str:
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


def render_mistakes(best: Record, data_dir: str | None) -> str:
    """The wrongly classified test images of highest confidence of a finished run, as HTML.

    `data_dir` is the folder of tensorflow_datasets; default the run's if it exists here, else
    `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`. Nothing is downloaded. Raises UserError where the net or
    the data is missing or damaged.
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
        picture = render_image(png.getvalue(), "png", caption)
        figures.append(f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>\n")
    return f'<p>{escape(text)}</p><div class="grid">\n{"".join(figures)}</div>'
