"""The paper's figure 6: error and learning rate over the updates. Needs matplotlib."""

from __future__ import annotations

import functools
import io
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.recipes import Recipe
from keras_resnet.report.rows import Record, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINES = 20  # of panels: a picture may not have more than 65,536 pixels on a side
PAPER_TOP = 25.0  # percent: the end of the paper's error axis
FEW = 10  # evaluations up to which each has a mark: a line of one point would draw nothing
KINDS = {"plain": "Plain nets", "resnet": "Residual nets"}
# Okabe and Ito's palette for colour-blind readers, without its yellow, which is too pale on white. Each of
# the paper's depths always has its own colour; other depths take turns.
COLORS = {
    20: "#E69F00", 32: "#56B4E9", 44: "#009E73", 56: "#D55E00", 110: "#000000", 1202: "#CC79A7",
}  # fmt: skip
OTHER_COLORS = ("#0072B2", "#7A4B00", "#8A8A8A")
VALIDATION: dict[str, Any] = {"lw": 2.2, "solid_capstyle": "round"}
TRAINING: dict[str, Any] = {"lw": 1.1, "ls": (0, (4, 1.2))}
STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#E3E3E3",
    "svg.fonttype": "path",
    "svg.hashsalt": "keras_resnet",  # the same runs give the same bytes
}


def figure6_file(rows: Sequence[Row], kind: str) -> bytes:
    """`figure6` as a file: `kind` is `"png"` (150 dots per inch) or `"svg"`."""
    import matplotlib

    data = io.BytesIO()
    with matplotlib.rc_context({**STYLE, "font.family": _font()}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure6(rows).savefig(data, format=kind, dpi=150, metadata=metadata)
    return data.getvalue()


def figure6(rows: Sequence[Row]) -> Figure:
    """Plain nets left, residual nets right: one line of panels per recipe, on the same axes.

    A kind of net that no row has gets no column. At most `MAX_LINES` recipes are drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.transforms import Bbox

    by_title: dict[str, list[Row]] = {}
    for row in rows:
        numbers = f"{row.recipe.steps:,} updates, {row.config.dataset}, {row.precision}"
        by_title.setdefault(f"recipe {row.recipe_text}\n{numbers}", []).append(row)
    drawn = list(by_title.items())[:MAX_LINES]
    kinds = [kind for kind in KINDS if any(row.config.model == kind for row in rows)]
    figure = Figure(figsize=(5.6 * len(kinds), 4.2 * len(drawn) + 0.4))
    figure.set_layout_engine("constrained", hspace=0, h_pad=0.06)
    grid = figure.add_gridspec(len(drawn), len(kinds))
    for line, (title, members) in enumerate(drawn):
        for column, kind in enumerate(kinds):
            cells = grid[line, column].subgridspec(2, 1, height_ratios=[5, 1], hspace=0)
            errors = figure.add_subplot(cells[0])
            shown = [row for row in members if row.config.model == kind]
            if not shown:
                errors.set_axis_off()
                text = f"no {KINDS[kind].lower()} were trained by this recipe"
                errors.text(0.5, 0.5, text, ha="center", color="#777777")
                continue
            lines = [textwrap.fill(text, 62) for text in f"{KINDS[kind]}, {title}".split("\n")]
            errors.set_title("\n".join(lines), loc="left", linespacing=1.3)
            _draw_errors(errors, shown, _top(members))
            _draw_rates(figure.add_subplot(cells[1], sharex=errors), shown)
    keys: list[Any] = [
        Line2D([], [], color="#555555", **VALIDATION, label="validation error"),
        Line2D([], [], color="#555555", **TRAINING, label="training error"),
        Patch(color="#555555", alpha=0.25, lw=0, label="range of the seeds"),
    ]
    keys = keys if any(len(row.finished) > 1 for row in rows) else keys[:2]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False)
    # The layout's last digits differ from process to process, and so would names in the SVG.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(Bbox(axes.get_position().get_points().round(4)))
    return figure


def _draw_errors(axes: Axes, rows: Sequence[Row], top: float) -> None:
    """Draw the mean of each row's finished runs and each unfinished run, labelled at their ends."""
    axes.set(xlim=(0, rows[0].recipe.steps), ylim=(0, top), ylabel="error (%)")
    axes.tick_params(labelbottom=False)
    ends: list[tuple[float, float, str, str, str]] = []  # error, step, label, its weight, colour
    for row, records in _lines(rows):
        color = COLORS.get(row.config.depth) or OTHER_COLORS[row.config.depth // 6 % 3]
        finished = records[0].results is not None
        label = row.name if finished else f"{row.name}, unfinished"
        for column, style, weight in (
            ("train_error", TRAINING, "normal"),
            ("val_error", VALIDATION, "bold"),
        ):
            steps, mean, low, high = _curve(records, column)
            if steps:
                marks = {"marker": "o", "ms": 4, "clip_on": False} if len(steps) <= FEW else {}
                axes.plot(steps, mean, **{"color": color, **style, **marks})
                axes.fill_between(steps, low, high, color=color, alpha=0.2, lw=0)
                if not finished:
                    axes.plot(steps[-1], mean[-1], "o", color=color, mfc="white", mew=1.6)
                ends.append((mean[-1], steps[-1], label, weight, color))
        if finished and not row.values("val_error"):
            error = statistics.fmean(row.values("test_error"))
            axes.plot(row.recipe.steps, error, "D", color=color, clip_on=False)
            ends.append((error, row.recipe.steps, f"{label}, test error", "bold", color))
    ends.sort()
    heights = _moved_apart([min(error, top) for error, *_ in ends], gap=0.05 * top)
    for (error, step, label, weight, color), height in zip(ends, heights, strict=True):
        axes.annotate(
            label, xy=(step, error), xytext=(1.04, height), textcoords=axes.get_yaxis_transform(),
            size=9, weight=weight, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.8, "relpos": (0, 0.5),
                        "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip


def _lines(rows: Sequence[Row]) -> Iterator[tuple[Row, list[Record]]]:
    """The runs of each line: all finished ones of a row, of which the mean is drawn; one unfinished."""
    for row in rows:
        if row.finished:
            yield row, row.finished
        for record in row.unfinished:
            yield row, [record]


def _curve(
    records: Sequence[Record], column: str
) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps at which all runs have the number, and its mean, lowest and highest value."""
    points: list[dict[int, float]] = []
    for record in records:
        numbers = {row["step"]: dict(row)[column] for row in record.metrics}
        points.append({k: v for k, v in numbers.items() if isinstance(v, float) and isfinite(v)})
    steps = sorted(set.intersection(*map(set, points)))
    values = [[of_run[step] for of_run in points] for step in steps]
    return steps, [*map(statistics.fmean, values)], [*map(min, values)], [*map(max, values)]


def _top(rows: Sequence[Row]) -> float:
    """End of the error axis: the paper's 25 %, or more where a line ends above it.

    Of runs with few evaluations all errors are on the axis.
    """
    errors = [PAPER_TOP]
    for record in (record for row in rows for record in row.records):
        for column in ("train_error", "val_error"):
            _, values, _, _ = _curve([record], column)
            errors += [1.3 * error for error in (values if len(values) <= FEW else values[-1:])]
    return min(100.0, max(errors))


def _moved_apart(values: Sequence[float], gap: float) -> list[float]:
    """Sorted values, at least 0, moved until neighbours are about `gap` apart."""
    moved = list(values)
    for _ in range(200):
        for k in range(1, len(moved)):
            overlap = max(0.0, gap - (moved[k] - moved[k - 1]))
            moved[k - 1 : k + 1] = moved[k - 1] - overlap / 2, moved[k] + overlap / 2
        moved = [max(value, k * gap) for k, value in enumerate(moved)]
    return moved


def _draw_rates(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the learning rates of the rows' recipes: from 110 layers on, one may have a warm-up."""
    recipe = rows[0].recipe
    for each in {row.recipe: None for row in rows}:
        axes.plot(*learning_rates(each), color="#333333", lw=1.4)
    highest = recipe.learning_rate
    axes.locator_params(axis="x", nbins=6)
    axes.set_yticks([0, highest])
    if recipe.schedule == "step":
        axes.set(yscale="log", ylim=(highest / 300, highest * 2))
        axes.set_yticks([highest, highest / 10, highest / 100])
        axes.yaxis.set_minor_formatter("")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="updates", ylabel="rate")
    if recipe.kernel_rate is not None:
        text = f"kernels by Muon,\nat most {recipe.kernel_rate:g}"
        axes.text(1.04, 0.5, text, transform=axes.transAxes, size=9, va="center")


@functools.cache
def learning_rates(recipe: Recipe) -> tuple[list[int], list[float]]:
    """Updates made, and the learning rate of the next: about 200 points and both sides of drops."""
    from keras_resnet.recipes.schedules import schedule_of  # Keras, which takes seconds to import

    schedule = schedule_of(recipe)
    drops = (recipe.warmup_steps, recipe.steps // 2, recipe.steps * 3 // 4)
    steps = {0, recipe.steps - 1, *drops, *(max(0, step - 1) for step in drops)}
    steps.update(range(0, recipe.steps, max(1, recipe.steps // 200)))
    return sorted(steps), [float(schedule(step)) for step in sorted(steps)]


def _font() -> str:
    """The DejaVu Sans that comes with matplotlib, under a name of its own.

    A system's DejaVu Sans may be of another version: the same runs would give another SVG.
    """
    import matplotlib
    from matplotlib import font_manager

    name = "DejaVu Sans of matplotlib"
    if name not in font_manager.fontManager.get_font_names():
        folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
        for file, weight in (("DejaVuSans.ttf", 400), ("DejaVuSans-Bold.ttf", 700)):
            entry = font_manager.FontEntry(fname=str(folder / file), name=name, weight=weight)
            font_manager.fontManager.ttflist.append(entry)
    return name
