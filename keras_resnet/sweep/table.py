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

# Errors are in percent.
COLUMNS = ("run", "seed", "node", "update", "val. %", "images/s", "left")
_TO_THE_LEFT = ("run", "node")
_ORDER = ("running", "held", "failed", "waiting", "finished")
_AROUND = 7  # lines of a terminal that are not rows: head, rule, blank, counts, and for the cursor
# Of the report's table; the others stand in its page.
_SHOWN = ("net", "recipe", "test error (%)", "runs", "He et al. (%)", "PyTorch (%)", "updates", "hours",
          "data", "precision")  # fmt: skip
# Shown only where rows differ in them: most sweeps have one of each.
_ALIKE = ("recipe", "updates", "data", "precision")


class Lines:
    """A line per event."""

    def event(self, text: str) -> None:
        console.print_line(text)

    def refresh(self, entries: Sequence[Entry]) -> None:
        pass


@contextlib.contextmanager
def _until_closed() -> Iterator[None]:
    """Show it as long as the terminal is there. When it is closed, a SIGHUP ends the sweep in order."""
    try:
        yield
    except OSError:
        console.silence()


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
        with _until_closed():
            self._live.console.print(text, markup=False, highlight=False)

    def refresh(self, entries: Sequence[Entry]) -> None:
        rows_at_most = max(3, self._live.console.height - _AROUND)
        with _until_closed():
            self._live.update(render(entries, self.rates, self.slots, rows_at_most), refresh=True)


@contextlib.contextmanager
def watching(rates: Mapping[tuple[Any, ...], float], slots: int) -> Iterator[Watcher]:
    """The watcher that suits stdout."""
    if not sys.stdout.isatty():
        yield Lines()
        return
    from rich.live import Live

    live = Live(auto_refresh=False, transient=False)
    live.start()
    try:
        yield LiveTable(live, rates, slots)
    finally:
        with _until_closed():
            live.stop()


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

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in COLUMNS:
        table.add_column(
            name,
            justify="left" if name in _TO_THE_LEFT else "right",
            no_wrap=name != "run",
            overflow="fold" if name == "run" else "ellipsis",
        )
    ordered = sorted(entries, key=lambda entry: _ORDER.index(entry.state))
    for entry in ordered[:most]:
        table.add_row(*_cells(entry, rates), style=_style(entry))
    told = counts(entries, rates, slots)
    if len(ordered) > most:
        told += f"\n{len(ordered) - most} more are not shown"
    return Group(table, "", Text(told))


def _cells(entry: Entry, rates: Mapping[tuple[Any, ...], float]) -> list[str]:
    at, config, moves = entry.at, entry.run.config, entry.state in ("running", "held")
    where = {
        "running": entry.node, "held": "other process", "waiting": "waiting", "failed": "failed",
        "finished": "" if at.test_error is None else f"test {at.test_error:.2f} %",
    }[entry.state]  # fmt: skip
    left = hours_left(entry.run, at, rates.get(net_of(config))) if entry.state != "failed" else None
    return [
        config.experiment,
        str(config.seed),
        where,
        f"{at.step:,}/{entry.run.steps:,}",
        "" if at.val_error is None else f"{at.val_error:.2f}",
        f"{at.rate:,.0f}" if moves and at.rate else "",
        console.duration(3600 * left) if left else "",
    ]


def _style(entry: Entry) -> str:
    return {"failed": "red", "waiting": "dim", "finished": "green"}.get(entry.state, "")


def counts(entries: Sequence[Entry], rates: Mapping[tuple[Any, ...], float], slots: int) -> str:
    """E.g. `"2 of 25 finished, 8 running, 15 waiting; about 3 h 10 min left"`."""
    states: Counter[str] = Counter(entry.state for entry in entries)
    parts = [f"{states['finished']} of {len(entries)} finished"]
    parts += [
        f"{states[state]} {text}"
        for state, text in (
            ("running", "running"), ("held", "held"), ("waiting", "waiting"),
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
        left = f"; about {console.duration(3600 * makespan(known, max(1, slots)))} left"
    return ", ".join(parts) + left


def results(entries: Sequence[Entry]) -> str:
    """The report's table of the finished ones among these runs, as text; empty where there are none."""
    found = [rows.read_record(e.run.folder.path) for e in entries if e.state == "finished"]
    if not found:
        return ""
    lines = tables.table(rows.group(found)[0])
    by_name = {name: [line[name] for line in lines] for name in lines[0]}
    alike = {n: by_name.pop(n)[0] for n in _ALIKE if len(set(by_name[n])) == 1}
    shown = [name for name in _SHOWN if name in by_name]
    text = columns(shown, list(zip(*(by_name[name] for name in shown), strict=True)))
    told = [f"{name} {value}" for name, value in alike.items() if value != "-"]
    return f"{text}\nall rows: {', '.join(told)}"


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
