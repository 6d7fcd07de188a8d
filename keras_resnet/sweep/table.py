"""What a sweep shows: a live table on a terminal, a line per event elsewhere, and tables of text."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_resnet import console
from keras_resnet.report import rows, tables
from keras_resnet.sweep.drive import Entry, Watcher
from keras_resnet.sweep.plan import hours_left, makespan, net_of

if TYPE_CHECKING:
    from rich.console import Group

COLUMNS = ("run", "node", "update", "validation", "images/s", "left")
_ORDER = ("running", "held", "failed", "waiting", "finished")
_AROUND = 6  # lines of a terminal that are not rows: head, rules, counts, and one for the cursor
# Of the report's table; the others stand in its page.
_SHOWN = ("model", "shortcut", "test error (%)", "runs", "He et al. (%)", "PyTorch (%)", "steps",
          "hours", "dataset", "precision", "other settings")  # fmt: skip
# Shown only where rows differ in them: most sweeps have one of each.
_ALIKE = ("shortcut", "steps", "dataset", "precision", "other settings")


class Lines:
    """A line per event."""

    def event(self, text: str) -> None:
        console.print_line(text)

    def refresh(self, entries: Sequence[Entry]) -> None:
        pass


class LiveTable:
    """A table that stays at the bottom of the terminal, with the events above it.

    Args:
        live: rich's.
        rates: net -> images per second of runs like it.
        slots: runs that go on at once.
    """

    def __init__(self, live: Any, rates: Mapping[tuple[Any, ...], float], slots: int):
        self._live, self.rates, self.slots = live, rates, slots

    def event(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def refresh(self, entries: Sequence[Entry]) -> None:
        rows_at_most = max(3, self._live.console.height - _AROUND)
        self._live.update(render(entries, self.rates, self.slots, rows_at_most), refresh=True)


@contextlib.contextmanager
def watching(rates: Mapping[tuple[Any, ...], float], slots: int) -> Iterator[Watcher]:
    """The watcher that suits stdout."""
    if not sys.stdout.isatty():
        yield Lines()
        return
    from rich.live import Live

    with Live(auto_refresh=False, transient=False) as live:
        yield LiveTable(live, rates, slots)


def render(
    entries: Sequence[Entry], rates: Mapping[tuple[Any, ...], float], slots: int, most: int
) -> Group:
    """The live table.

    Args:
        entries: the runs.
        rates: net -> images per second of runs like it.
        slots: runs that go on at once.
        most: rows that there is room for; what does not move is left out first.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    for name in COLUMNS:
        right = name not in COLUMNS[:2]
        table.add_column(
            name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis",
            min_width=None if right else 8,
        )  # fmt: skip
    ordered = sorted(entries, key=lambda entry: _ORDER.index(entry.state))
    for entry in ordered[:most]:
        table.add_row(*_cells(entry, rates), style=_style(entry))
    told = counts(entries, rates, slots)
    hidden = f"; {len(ordered) - most} not shown" if len(ordered) > most else ""
    return Group(table, Text(told + hidden, no_wrap=True, overflow="ellipsis"))


def _cells(entry: Entry, rates: Mapping[tuple[Any, ...], float]) -> list[str]:
    at, steps = entry.at, entry.run.steps
    update = f"{at.step:,}/{steps:,}"
    validation = "" if at.val_error is None else f"{at.val_error:.2f} %"
    rate = "" if at.rate is None else f"{at.rate:,.0f}"
    if entry.state == "finished":
        return [entry.run.name, "", update, validation, rate, f"test {at.test_error:.2f} %"]
    if entry.state == "failed":
        return [entry.run.name, "", update, validation, "", "failed"]
    node = {"running": entry.node, "held": "another", "waiting": ""}[entry.state]
    left = hours_left(entry.run, at, rates.get(net_of(entry.run.config)))
    if entry.state == "waiting":
        rate = ""
    elif at.step == 0:
        update = f"begins/{steps:,}" if entry.state == "running" else update
    return [entry.run.name, node, update, validation, rate, "" if left is None else span(left)]


def _style(entry: Entry) -> str:
    return {"failed": "red", "waiting": "dim", "finished": "green"}.get(entry.state, "")


def counts(entries: Sequence[Entry], rates: Mapping[tuple[Any, ...], float], slots: int) -> str:
    """E.g. `"2 of 25 finished, 8 running, 15 waiting; about 3 h 10 min left"`."""
    states: Counter[str] = Counter(entry.state for entry in entries)
    parts = [f"{states['finished']} of {len(entries)} finished"]
    parts += [
        f"{states[state]} {text}"
        for state, text in (
            ("running", "running"), ("held", "held elsewhere"), ("waiting", "waiting"),
            ("failed", "failed"),
        )
        if states[state]
    ]  # fmt: skip
    hours = [
        hours_left(entry.run, entry.at, rates.get(net_of(entry.run.config)))
        for entry in entries
        if entry.state not in ("finished", "failed")
    ]
    known = [left for left in hours if left is not None]
    left = ""
    if known and len(known) == len(hours):
        left = f"; about {span(makespan(known, max(1, slots)))} left"
    return ", ".join(parts) + left


def span(hours: float) -> str:
    """A duration in words, e.g. `"2 h 05 min"`; days for what is longer than two."""
    minutes = round(hours * 60)
    if minutes < 1:
        return f"{hours * 3600:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    return f"{hours / 24:.1f} days" if hours > 48 else f"{minutes // 60} h {minutes % 60:02d} min"


def results(entries: Sequence[Entry]) -> str:
    """The report's table of these runs, as text; empty where none has begun."""
    found = [
        rows.read(entry.run.folder.path)
        for entry in entries
        if entry.at.state in ("begun", "finished")
    ]
    if not found:
        return ""
    names, cells = tables.table(rows.group(found)[0])
    kept = [
        k
        for k, name in enumerate(names)
        if name in _SHOWN and not (name in _ALIKE and len({line[k] for line in cells}) == 1)
    ]
    same = [
        f"{names[k]} {cells[0][k]}"
        for k, name in enumerate(names)
        if name in _ALIKE and k not in kept and cells[0][k] != "-"
    ]
    text = columns([names[k] for k in kept], [[line[k] for k in kept] for line in cells])
    return text + (f"\nall rows: {', '.join(same)}" if same else "")


def columns(names: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table as plain text; columns of numbers stand to the right."""
    lines = [list(names), *map(list, cells)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(names))]
    right = [
        all(line[k][:1].isdigit() or line[k] == "-" for line in cells) for k in range(len(names))
    ]

    def text(line: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([text(names), "  ".join("-" * width for width in widths), *map(text, cells)])
