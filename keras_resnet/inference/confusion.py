"""A confusion matrix as a table and as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.inference.evaluate import Evaluation
from keras_resnet.runs import files

_WIDE = 20  # classes; with more the confusion matrix is not printed, and plotted without numbers


def error_table(result: Evaluation, names: Sequence[str]) -> str:
    """Errors by class, the most frequent confusions, and the matrix unless it is too wide for a terminal."""
    confusion, width = result.confusion, max(map(len, [*names, "class"]))
    lines = [f"{'class':<{width}}  images  errors  error %  most often taken for"]
    others = confusion - np.diag(np.diag(confusion))
    rows = zip(names, confusion, others, result.class_errors, strict=True)
    for name, row, wrong, error in rows:
        taken = f"{names[wrong.argmax()]} ({wrong.max():,})" if wrong.any() else "-"
        lines.append(f"{name:<{width}}  {row.sum():6,}  {wrong.sum():6,}  {error:7.2f}  {taken}")
    pairs = zip(*np.unravel_index(np.argsort(-others, axis=None)[:5], others.shape), strict=True)
    texts = [
        f"  {names[k]} taken for {names[j]}: {others[k, j]:,}" for k, j in pairs if others[k, j]
    ]
    lines += ["", "most frequent confusions:", *(texts or ["  none"])]
    if len(names) <= _WIDE:
        cell = max(len(str(confusion.max())), 4)
        lines += [
            "",
            "confusion matrix: rows are true classes, columns predicted ones, in this order",
        ]
        for name, row in zip(names, confusion, strict=True):
            lines.append(f"{name:<{width}}  " + " ".join(f"{count:{cell}}" for count in row))
    return "\n".join(lines)


def check_plot(path: Path) -> None:
    """Raise UserError where `plot` could not write: called before the work, not after it."""
    known = path.suffix.lower() in (".png", ".svg", ".pdf")
    if not known or path.is_dir() or not path.parent.is_dir():
        raise UserError(
            f"`plot` must end in .png, .svg or .pdf, in a folder that exists. Received: {path}"
        )
    import matplotlib  # noqa: F401  before the work: it may be missing


def plot(path: Path, result: Evaluation, names: Sequence[str], title: str) -> None:
    """Draw the confusion matrix to a .png, .svg or .pdf file; with up to 20 classes, cells hold numbers.

    One hue from light to dark, by the square root of the percent: the few percent off the diagonal show.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    confusion, count = result.confusion, len(names)
    # Else matplotlib reads what is between dollar signs as a formula.
    title, *names = (text.replace("$", r"\$") for text in (title, *names))
    percent = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side, font = (max(6.0, 0.62 * count), 9) if count <= _WIDE else (0.15 * count, 7)
    figure = Figure(figsize=(side + 2.2, side + 1.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(percent, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    axes.set_xticks(range(count), names, rotation=90, fontsize=font)
    axes.set_yticks(range(count), names, fontsize=font)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"{title}: error {result.error:.2f} % of {result.images:,} images")
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, ticks=[0, 1, 5, 10, 25, 50, 75, 100])
    bar.set_label("percent of the true class's images")
    for row, column in zip(*np.nonzero(confusion), strict=True) if count <= _WIDE else ():
        color, text = "white" if percent[row, column] > 35 else "black", confusion[row, column]
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    with files.atomic(path) as temporary:
        figure.savefig(temporary)
