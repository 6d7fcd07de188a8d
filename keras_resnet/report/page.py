"""The report's page: one HTML file that asks for nothing from outside."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import PIL.Image

from keras_resnet.report.mistakes import Mistakes
from keras_resnet.report.rows import Record
from keras_resnet.report.tables import Table


def page(summary: str, sections: Sequence[tuple[str, str]]) -> str:
    """The page, of a sentence below its title and sections: (heading, HTML)."""
    body = "\n".join(
        f"<section><h2>{escape(heading)}</h2>{content}</section>" for heading, content in sections
    )
    return f"{_HEAD}<p>{escape(summary)}</p>\n{body}\n</main></body></html>\n"


def figure(svg: bytes, description: str, caption: str) -> str:
    """A picture with its caption, as HTML."""
    return (
        f'<figure><div class="scroll">{_image(svg, "svg+xml", description)}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def table(table: Table, note: str = "") -> str:
    """A table with a note below, as HTML."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table[0])
    rows = "\n".join(f"<tr>{''.join(map(_cell, line.values()))}</tr>" for line in table)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n'
        f"</tbody></table></div><p>{escape(note)}</p>"
    )


def mistakes(best: Record, shown: Mistakes) -> str:
    """The best run's mistakes, as HTML."""
    text = (
        f"The best run by validation error ({best.number('val_error'):.2f} %; the test error has no say) "
        f"is {best.run.folder.path}. Its net classifies {shown.count:,} of {shown.total:,} test images "
        f"wrongly ({100 * shown.count / shown.total:.2f} %; its results.json says "
        f"{best.number('test_error'):.2f} %). Of these {len(shown.captions)} mistakes it is surest: what "
        "it says, how sure it is, and what the image is."
    )
    figures = []
    for image, caption in zip(shown.images, shown.captions, strict=True):
        png = io.BytesIO()
        PIL.Image.fromarray(image).save(png, "png")
        picture = _image(png.getvalue(), "png", caption)
        figures.append(f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>\n")
    return f'<p>{escape(text)}</p><div class="grid">\n{"".join(figures)}</div>'


def _image(data: bytes, kind: str, description: str) -> str:
    content = base64.b64encode(data).decode()
    return f'<img alt="{escape(description)}" src="data:image/{kind};base64,{content}">'


def _cell(text: str) -> str:
    short = ' class="short"' if len(text) <= 16 else ""  # not broken into lines
    return f"<td{short}>{escape(text).replace('/', '/<wbr>')}</td>"


# The policy keeps the page self-contained, whatever the texts of a run folder hold.
_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light">
<title>CIFAR ResNets: report</title>
<style>
body { margin: 0; background: #fff; color: #1a1a1a; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.7rem; margin: .3em 0; }
h2 { font-size: 1.25rem; margin: 2em 0 .5em; }
figure { margin: 0; }
figcaption, section > p { color: #444; font-size: .9rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.scroll img { width: 100%; min-width: 760px; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 9px 5px 0; border-bottom: 1px solid #ddd; text-align: left; }
th, td { vertical-align: top; min-width: 7em; }
th, .short { min-width: 0; }
.short { white-space: nowrap; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 14px; }
.grid img { width: 100%; display: block; }
.grid figcaption { white-space: pre-line; font-size: .78rem; line-height: 1.3; margin-top: 3px; }
</style></head><body><main>
<h1>CIFAR ResNets: report</h1>
"""
