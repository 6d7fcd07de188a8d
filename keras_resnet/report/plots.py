"""The report's pictures: the paper's figure 6, learning rate, throughput. Needs matplotlib."""

from __future__ import annotations

import io
import os
import statistics
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_resnet.errors import missing
from keras_resnet.report.rows import Row, Run, sections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ERROR = 25.0
MAX_SECTIONS = 8
SHORT = 5_000  # updates: shorter runs have plain numbers below
_FEW = 10  # points of a curve, up to which each is marked
# Okabe and Ito's palette, made for colour-blind readers, without its yellow (too pale on white).
# The paper's depths always have the same colour, others take what is free.
COLORS = {
    20: "#E69F00", 32: "#56B4E9", 44: "#009E73", 56: "#D55E00", 110: "#000000", 1202: "#CC79A7",
}  # fmt: skip
_TRAINING: dict[str, Any] = {"lw": 0.9, "ls": (0, (3, 1.5))}
_VALIDATION: dict[str, Any] = {"lw": 2.0, "solid_capstyle": "round"}
_FREE = ("#0072B2", "#999999", "#7A4B00")
_STYLE = {
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


def _font() -> str:
    """The name of the DejaVu Sans that comes with matplotlib.

    Under a name of its own, because a system's copy may be of another version: glyphs then have other
    numbers, and the same runs give another SVG.
    """
    import matplotlib
    from matplotlib import font_manager

    name = "DejaVu Sans of matplotlib"
    if name not in font_manager.fontManager.get_font_names():
        path = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
        font_manager.fontManager.ttflist.append(font_manager.FontEntry(fname=path, name=name))
    return name


def require_matplotlib() -> None:
    """Raise UserError, saying how to install it, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise missing("matplotlib", "the report") from None


def figure6(rows: Sequence[Row], columns: int) -> Figure:
    """Figure 6 of the paper: a pair of panels, plain and residual, for each schedule and recipe.

    A panel that would be empty is left out.

    Args:
        rows: of the table; the first `MAX_SECTIONS` recipes are drawn.
        columns: 2 puts the panels side by side, 1 one below the other for narrow screens.
    """
    from matplotlib.lines import Line2D

    kinds = [_kinds(members) for members in sections(rows).values()]
    figure, panels = _panels([len(models) for models in kinds], columns, height=3.6)
    colors = depth_colors(rows)
    keys: dict[object, Any] = {
            depth: Line2D([], [], color=color, lw=2.0, label=f"{depth} layers")
            for depth, color in colors.items()}  # fmt: skip
    keys |= {
        "train": Line2D([], [], color="#555555", **_TRAINING, label="training error"),
        "val": Line2D([], [], color="#555555", **_VALIDATION, label="validation error"),
    }
    for (title, members), models, drawn_in in zip(
        sections(rows).items(), kinds, panels, strict=False
    ):
        top = _top(members)
        for model, axes in zip(models, drawn_in, strict=True):
            _title(axes, "Plain nets" if model == "plain" else "Residual nets", title, columns)
            axes.set(ylim=(0, top), ylabel="error (%)")
            _iterations(axes, members[0])
            drawn = [row for row in members if row.config.model == model]
            box = {"fc": "white", "ec": "none", "alpha": 0.8}
            above = []
            for row in drawn:
                lowest, markers = _draw_errors(axes, row, colors[row.config.depth])
                keys.update(markers.items())
                above += [row.name] if top < lowest < float("inf") else []
            if above:
                text = textwrap.fill(f"above {top:.0f} %: {', '.join(above)}", 36)
                axes.text(0.99, 0.98, text, transform=axes.transAxes, ha="right", va="top",
                          size=9, bbox=box)  # fmt: skip
    _legend(figure, list(keys.values()), columns)
    return figure


def progress(rows: Sequence[Row], columns: int) -> Figure:
    """Learning rate and images/s over the updates, a pair of panels for each recipe."""
    from matplotlib.lines import Line2D

    figure, pairs = _panels([2] * len(sections(rows)), columns, height=2.8)
    colors = depth_colors(rows)
    for (title, members), (rate, speed) in zip(sections(rows).items(), pairs, strict=False):
        _title(rate, "Learning rate", title, columns)
        _title(speed, "Throughput", title, columns)
        rate.set(yscale="log", ylabel="learning rate")
        speed.set(ylabel="images/s")
        schedules: list[dict[float, float]] = []
        for row in sorted(members, key=lambda row: -max(run.step for run in row.runs)):
            line = "-" if row.config.model == "resnet" else "--"
            style: dict[str, Any] = {"color": colors[row.config.depth], "ls": line}
            longest = [max(row.runs, key=lambda run: run.step)]
            steps, rates, _, _ = _curve(longest, "learning_rate", _unit(row))
            schedule = dict(zip(steps, rates, strict=True))
            if not any(schedule.items() <= other.items() for other in schedules):
                schedules.append(schedule)
                style |= _mark(row, steps, "o")
                rate.plot(steps, rates, drawstyle="steps-pre", lw=1.8, **style)
            for run in row.runs:
                steps, values, _, _ = _curve([run], "images_per_second", _unit(row))
                speed.plot(steps, values, lw=1.2, **style | _mark(row, steps, "o"))
        if len(schedules) == 1 < len(members):
            place: dict[str, Any] = {"transform": rate.transAxes, "ha": "right", "va": "top"}
            rate.text(0.99, 0.98, "the same for all", **place)
            rate.lines[0].set(color="#333333", ls="-")
        for axes in (rate, speed):
            _iterations(axes, members[0])
        speed.set_ylim(bottom=0)
    keys = [Line2D([], [], color=c, lw=2, label=f"{depth} layers") for depth, c in colors.items()]
    keys += [Line2D([], [], color="#555555", lw=1.6, label="residual"),
             Line2D([], [], color="#555555", lw=1.6, ls="--", label="plain")]  # fmt: skip
    _legend(figure, keys, columns)
    return figure


def picture(
    draw: Callable[[Sequence[Row], int], Figure], rows: Sequence[Row], kind: str, columns: int = 2
) -> bytes:
    """Draw (`figure6` or `progress`) to a file: `kind` is `"png"` (150 dots per inch) or `"svg"`."""
    import matplotlib

    data = io.BytesIO()
    with matplotlib.rc_context({**_STYLE, "font.family": _font()}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        draw(rows, columns).savefig(data, format=kind, dpi=150, metadata=metadata)
    return data.getvalue()


def depth_colors(rows: Sequence[Row]) -> dict[int, str]:
    """A colour for each depth that occurs, by depth."""
    depths = sorted({row.config.depth for row in rows})
    used = {COLORS.get(depth) for depth in depths}
    free = [*_FREE, *(color for color in COLORS.values() if color not in used)]
    others = [depth for depth in depths if depth not in COLORS]
    return {d: COLORS.get(d) or free[others.index(d) % len(free)] for d in depths}


def _top(rows: Sequence[Row]) -> float:
    """Upper end of the error axis: the paper's for whole schedules on CIFAR-10, else what shows the last
    errors; of short runs, all errors.
    """
    if all(row.full_schedule and row.config.dataset == "cifar10" for row in rows):
        return MAX_ERROR
    first = 0 if _is_short(rows[0]) else -1
    shown = [metrics for row in rows for run in row.runs for metrics in run.metrics[first:]]
    errors = [m[name] for m in shown for name in ("train_error", "val_error")]
    least = 1.0 if _is_short(rows[0]) else MAX_ERROR
    return min(100.0, max([least, *(1.2 * error for error in errors if error and error <= 100)]))


def _draw_errors(axes: Axes, row: Row, color: str) -> tuple[float, dict[str, Any]]:
    """Draw a row's curves: the mean of the finished runs, and each unfinished run by itself.

    Returns:
        The lowest error drawn (infinite for none), and legend keys of markers that were used.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lowest: list[float] = [float("inf")]
    keys: dict[str, Any] = {}
    end: dict[str, Any]
    for runs in [row.finished, *([run] for run in row.unfinished)]:
        if not runs:
            continue
        steps, train, _, _ = _curve(runs, "train_error", _unit(row))
        mark = _mark(row, steps, "s", mfc="white", mew=1.4)
        axes.plot(steps, train, color=color, **_TRAINING | mark)
        if mark and train:
            keys["train"] = Line2D(
                [], [], color="#555555", **_TRAINING | mark, label="training error"
            )
        steps, val, low, high = _curve(runs, "val_error", _unit(row))
        mark = _mark(row, steps, "o")
        axes.plot(steps, val, color=color, **_VALIDATION | mark)
        if mark and val:
            keys["val"] = Line2D(
                [], [], color="#555555", **_VALIDATION | mark, label="validation error"
            )
        if len(runs) > 1:
            axes.fill_between(steps, low, high, color=color, alpha=0.18, lw=0)
            keys["spread"] = Patch(color="#555555", alpha=0.25, lw=0, label="range of seeds")
        lowest += train + val
        if runs[0].results is None and (val or train):
            end = {"color": "#555555", "marker": "o", "mfc": "white", "mew": 1.6, "ls": "none",
                   "clip_on": not _is_short(row)}  # fmt: skip
            axes.plot(steps[-1:], (val or train)[-1:], **{**end, "color": color})
            keys["unfinished"] = Line2D([], [], **end, label="not finished")
        if runs[0].results is not None and not val:
            end = {"color": "#555555", "marker": "D", "ls": "none"}
            error = row.mean("test_error") or 0.0
            axes.plot([row.steps / _unit(row)], [error], clip_on=False, **{**end, "color": color})
            keys["test"] = Line2D([], [], **end, label="test error (no validation)")
            lowest.append(error)
    return min(value for value in lowest if value == value), keys


def _mark(row: Row, steps: Sequence[float], marker: str, **style: Any) -> dict[str, Any]:
    """Markers of a curve of few points: a line of one point would draw nothing.

    Those of short runs are whole at the edges: nothing lies beyond their axes.
    """
    few = {"marker": marker, "ms": 6, "clip_on": not _is_short(row), **style}
    return few if len(steps) <= _FEW else {}


def _is_short(row: Row) -> bool:
    return row.steps < SHORT


def _kinds(rows: Sequence[Row]) -> list[str]:
    """The kinds of nets that a section has a panel for."""
    kinds = ["plain", "resnet"]
    there = {row.config.model for row in rows}
    return [kind for kind in kinds if kind in there]


def _unit(row: Row) -> float:
    """What the updates below a panel are counted in: the paper's 1e4, or 1 for short runs."""
    return 1 if _is_short(row) else 1e4


def _curve(
    runs: Sequence[Run], column: str, unit: float
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Steps in `unit` that all the runs have, and a column's mean, lowest and highest value there."""
    points: list[dict[int, float]] = []
    for run in runs:
        rows: list[dict[str, Any]] = [dict(row) for row in run.metrics]
        points.append({row["step"]: row[column] for row in rows if row[column] is not None})
    steps = sorted(set.intersection(*map(set, points)))
    values = [[of_run[step] for of_run in points] for step in steps]
    return (
        [step / unit for step in steps],
        [statistics.fmean(v) for v in values],
        [min(v) for v in values],
        [max(v) for v in values],
    )


def _panels(counts: Sequence[int], columns: int, height: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure with one or two panels for each section; one alone is as wide as two."""
    from matplotlib.figure import Figure

    counts = counts[:MAX_SECTIONS]
    lines = len(counts) if columns == 2 else sum(counts)
    width = 5.0 if columns == 2 else 4.0
    figure = Figure(figsize=(width * columns, height * lines + 0.7), layout="constrained")
    grid = figure.add_gridspec(lines, columns)
    panels, line = [], 0
    for count in counts:
        if columns == 2:
            cells = [grid[line, :]] if count == 1 else [grid[line, 0], grid[line, 1]]
            line += 1
        else:
            cells = [grid[line + k, 0] for k in range(count)]
            line += count
        panels.append([figure.add_subplot(cell) for cell in cells])
    return figure, panels


def _title(axes: Axes, title: str, section: str, columns: int) -> None:
    text = textwrap.fill(section, 62 if columns == 2 else 48)
    axes.set_title(f"{title}\n{text}", loc="left", linespacing=1.3)


def _iterations(axes: Axes, row: Row) -> None:
    end = row.steps / _unit(row)
    axes.set(xlim=(0, end), xlabel="iterations" if _is_short(row) else "iterations (1e4)")
    for share in (0.5, 0.75) if row.key["schedule"] == "step" else ():  # where the rate drops
        axes.axvline(end * share, color="#BBBBBB", lw=0.8, zorder=0)


def _legend(figure: Figure, keys: list[Any], columns: int) -> None:
    figure.legend(
        handles=keys, loc="outside lower center", ncols=min(len(keys), 2 * columns + (columns > 1)),
        frameon=False, handlelength=2.2,
    )  # fmt: skip
