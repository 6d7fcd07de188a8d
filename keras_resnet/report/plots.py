"""The paper's figure 6: error and learning rate over the updates. Needs matplotlib."""

from __future__ import annotations

import io
import statistics
import textwrap
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.nets.family import MODELS
from keras_resnet.recipes import Recipe
from keras_resnet.report.rows import Record, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_RECIPES = 20  # lines of panels: a picture has at most 65,536 pixels per side
PANEL = (6.0, 4.3)  # inches
PAPER_TOP = 25.0  # percent: the end of the paper's error axis
SHORT = 5_000  # updates; for fewer, the error axis ends at 100 %
KINDS = {"plain": "Plain nets", "resnet": "Residual nets", "own": "Own nets"}
# Okabe and Ito's palette for colour-blind readers, without its yellow, which is too pale on white. Each of
# the paper's depths always has its own colour; other depths take turns.
COLORS = {
    20: "#E69F00", 32: "#56B4E9", 44: "#009E73", 56: "#D55E00", 110: "#000000", 1202: "#CC79A7",
}  # fmt: skip
OTHER_COLORS = ("#0072B2", "#7A4B00", "#8A8A8A")
VALIDATION: dict[str, Any] = {"lw": 2.4, "solid_capstyle": "round"}
TRAINING: dict[str, Any] = {"lw": 1.2, "ls": (0, (4, 1.2))}
FONT = "DejaVu Sans of matplotlib"  # a system's may be of another version and give another SVG
STYLE = {
    "font.family": FONT,
    "font.size": 10,
    "text.parse_math": False,  # names may hold $
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#E3E3E3",
    "svg.hashsalt": "keras_resnet",  # the same runs give the same bytes
}


def draw_figure6(rows: Sequence[Row], kind: str) -> bytes:
    """Figure 6 as a file: `kind` is `"png"` (150 dots per inch) or `"svg"`."""
    import matplotlib
    from matplotlib.font_manager import FontEntry, fontManager

    if FONT not in fontManager.get_font_names():
        folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
        for file, weight in (("DejaVuSans.ttf", 400), ("DejaVuSans-Bold.ttf", 700)):
            entry = FontEntry(fname=str(folder / file), name=FONT, weight=weight)
            fontManager.ttflist.append(entry)
    data = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        make_figure6(rows).savefig(data, format=kind, dpi=150, metadata=metadata)
    return data.getvalue()


def make_figure6(rows: Sequence[Row]) -> Figure:
    """Plain nets left, residual nets right: one line of panels per recipe, on the same axes.

    Where all nets are of one kind, there is one column. At most `MAX_RECIPES` recipes are drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    recipes: dict[str, list[Row]] = {}
    for row in rows:
        numbers = f"{row.recipe.steps:,} updates, {row.config.dataset}, {row.precision}"
        recipes.setdefault(f"recipe {row.recipe_text}\n{numbers}", []).append(row)
    drawn = list(recipes.items())[:MAX_RECIPES]
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    titles = [
        ["\n".join(textwrap.fill(t, 62) for t in f"{KINDS[k]}, {title}".split("\n")) for k in kinds]
        for title, _ in drawn
    ]
    # A panel's height has room for a title of two lines.
    more = [0.2 * max(0, *(text.count("\n") - 1 for text in of_line)) for of_line in titles]
    panel = PANEL[0] + 0.7 * any(row.unfinished for row in rows)  # their labels are longer
    width, height = panel * len(kinds), PANEL[1] * len(drawn) + 0.3 + sum(more)
    figure = Figure(figsize=(width, height))
    for line, (_, members) in enumerate(drawn):
        for column, kind in enumerate(kinds):
            left = panel * column + 0.85
            top = height - PANEL[1] * line - 0.5 - sum(more[: line + 1])
            box = (left / width, (top - 2.6) / height, 3.65 / width, 2.6 / height)
            errors = figure.add_axes(box)
            shown = [row for row in members if row.kind == kind]
            if not shown:
                errors.set_axis_off()
                text = f"no {KINDS[kind].lower()} were trained by this recipe"
                errors.text(0.5, 0.5, text, ha="center", color="#777777")
                continue
            errors.set_title(titles[line][column], loc="left", linespacing=1.3)
            _draw_errors(errors, shown, _top(members))
            box = (left / width, (top - 3.3) / height, 3.65 / width, 0.55 / height)
            _draw_rates(figure.add_axes(box, sharex=errors), shown)
    keys: list[Any] = [
        Line2D([], [], color="#555555", **VALIDATION, label="validation error"),
        Line2D([], [], color="#555555", **TRAINING, label="training error"),
        Patch(color="#555555", alpha=0.25, lw=0, label="range of the seeds"),
    ]
    keys = keys if any(len(row.finished) > 1 for row in rows) else keys[:2]
    figure.legend(handles=keys, loc="lower center", ncols=3, frameon=False)
    return figure


def _draw_errors(axes: Axes, rows: Sequence[Row], top: float) -> None:
    """Draw the mean of each row's finished runs and each unfinished run, labelled at their ends."""
    last = rows[0].recipe.steps  # before it, a coloured line to a label would look like data
    axes.set(xlim=(0, last), ylim=(0, top), ylabel="error (%)")
    axes.tick_params(labelbottom=False)
    ends: list[tuple[float, float, str, str, str]] = []  # error, step, label, its weight, colour
    lines = [(row, row.finished) for row in rows if row.finished]
    lines += [(row, [record]) for row in rows for record in row.unfinished]
    for row, records in lines:
        depth = row.config.depth
        color = COLORS.get(depth) if row.kind in MODELS else None
        color = color or OTHER_COLORS[(depth // 6 if row.kind in MODELS else rows.index(row)) % 3]
        finished = bool(records[0].results)
        label = row.name if finished else f"{row.name}, unfinished"
        for column, style in (("train_error", TRAINING), ("val_error", VALIDATION)):
            steps, values = _curve(records, column)
            if steps:
                mean = [*map(statistics.fmean, values)]
                axes.plot(steps, mean, color=color, **style)
                low, high = [*map(min, values)], [*map(max, values)]
                axes.fill_between(steps, low, high, color=color, alpha=0.2, lw=0)
                if len(steps) == 1 or not finished:
                    axes.plot(steps[-1], mean[-1], "o", color=color, mfc="white", clip_on=False)
                weight = "bold" if style is VALIDATION else "normal"
                ends.append((mean[-1], steps[-1], label, weight, color))
    ends.sort()
    heights = _moved_apart([min(error, top) for error, *_ in ends], gap=0.055 * top)
    for (error, step, label, weight, color), height in zip(ends, heights, strict=True):
        axes.annotate(
            label, xy=(step, error), xytext=(1.04, height), textcoords=axes.get_yaxis_transform(),
            size=9, weight=weight, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color if step == last else "#bbbbbb", "lw": 0.8,
                        "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip


def _curve(records: Sequence[Record], column: str) -> tuple[list[int], list[list[float]]]:
    """The updates at which all runs have a number in this column, and the numbers of all runs there."""
    points: list[dict[int, float]] = []
    for record in records:
        numbers = {row["step"]: dict(row)[column] for row in record.metrics}
        points.append({k: v for k, v in numbers.items() if isinstance(v, float) and isfinite(v)})
    steps = sorted(set.intersection(*map(set, points)))
    return steps, [[of_run[step] for of_run in points] for step in steps]


def _top(rows: Sequence[Row]) -> float:
    """End of the error axis: the paper's, or higher if a line ends above it; 100 % for short runs."""
    if rows[0].recipe.steps < SHORT:
        return 100.0
    last = [record.metrics[-1] for row in rows for record in row.records if record.metrics]
    errors = [row[column] or 0.0 for row in last for column in ("train_error", "val_error")]
    return min(100.0, 1.3 * max([PAPER_TOP / 1.3, *errors]))


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
        axes.plot(*sample_rates(each), color="#333333", lw=1.4)
    highest = recipe.learning_rate
    axes.locator_params(axis="x", nbins=5)
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


def sample_rates(recipe: Recipe) -> tuple[list[int], list[float]]:
    """Updates made, and the learning rate of the next: both sides of each drop, and a curve's points."""
    from keras_resnet.recipes.schedules import schedule_of  # Keras, which takes seconds to import

    schedule = schedule_of(recipe)
    drops = (recipe.warmup_steps, recipe.steps // 2, recipe.steps * 3 // 4)
    steps = {0, recipe.steps - 1, *drops, *(max(0, step - 1) for step in drops)}
    if recipe.schedule == "cosine":
        steps.update(range(0, recipe.steps, max(1, recipe.steps // 100)))
    return sorted(steps), [float(schedule(step)) for step in sorted(steps)]
