"""What a sweep shows: a live table on a terminal, one line per event elsewhere, and tables of text."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_resnet import console
from keras_resnet.report import rows, tables
from keras_resnet.sweep.plan import Net, SweepRun

# State -> colour of its rows, in the order of the table.
STATES = {"running": "", "held": "", "failed": "red", "waiting": "dim", "finished": "green"}
HEADS = 7  # lines of a terminal that the live table needs beside its rows
HOST = 16  # characters shown of the name of a host
RESULTS = ("test error (%)", "runs", "He et al. (%)", "PyTorch (%)", "updates", "hours")


class Lines:
    """One line per event, and one where a run has made another tenth of its updates.

    Args:
        runs: the runs.
        rates: net -> images per second.
        slots: how many runs train at once.
    """

    def __init__(self, runs: Sequence[SweepRun], rates: Mapping[Net, float], slots: int):
        self.runs, self.rates, self.slots = runs, rates, slots
        self._tenths = [_tenth(run) for run in runs]

    def event(self, text: str) -> None:
        """Show that something happened."""
        console.print_line(f"{text} ({self.counts()})")

    def refresh(self) -> None:
        """Show how far the runs are now."""
        for k, run in enumerate(self.runs):
            if run.state == "running" and _tenth(run) > self._tenths[k]:
                self._tenths[k] = _tenth(run)
                error = "" if run.val_error is None else f", validation error {run.val_error:.2f} %"
                self.event(f"{run}: update {_updates(run)}{error}")

    def counts(self) -> str:
        """E.g. `"2 of 25 finished, 8 running, 15 waiting; at least 3 h 10 min left"`."""
        states = Counter[str](run.state for run in self.runs)
        parts = [f"{states.pop('finished', 0)} of {len(self.runs)} finished"]
        parts += [f"{states[state]} {state}" for state in STATES if state in states]
        hours = [run.hours_left(self.rates) for run in self.runs]
        known = [left for left in hours if left is not None]
        if not any(known) or len(known) < len(hours):
            return ", ".join(parts)
        least = max(max(known), sum(known) / max(1, self.slots))
        return f"{', '.join(parts)}; at least {console.duration(3600 * least)} left"


class LiveTable(Lines):
    """A table that stays at the bottom of the terminal, with the events above it."""

    live: Any = None  # of rich

    def event(self, text: str) -> None:
        self.live.console.print(text, markup=False, highlight=False)

    def refresh(self) -> None:
        self.live.update(self.table(max(3, self.live.console.height - HEADS)), refresh=True)

    def table(self, height: int) -> Any:
        """The table with at most `height` rows; runs that do not train are left out first."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        table.add_column("run", overflow="fold")
        table.add_column("node", no_wrap=True)
        for name in ("update", "val. %", "images/s", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        ordered = sorted(self.runs, key=lambda run: list(STATES).index(run.state))
        for run in ordered[:height]:
            table.add_row(*self._cells(run), style=STATES[run.state])
        more = len(ordered) - height
        below = self.counts() + (f"\n{more} more are not shown" if more > 0 else "")
        return Group(table, "", Text(below))

    def _cells(self, run: SweepRun) -> list[str]:
        place = {"running": run.host, "held": "other process"}.get(run.state, run.state)
        if run.test_error is not None:
            place = f"test {run.test_error:.2f} %"
        left, trains = run.hours_left(self.rates), run.state in ("running", "held")
        return [
            str(run),
            place if len(place) <= HOST else f"{place[: HOST - 1]}…",
            _updates(run),
            "" if run.val_error is None else f"{run.val_error:.2f}",
            f"{run.rate:,.0f}" if trains and run.rate else "",
            console.duration(3600 * left) if left else "",
        ]


@contextlib.contextmanager
def watching(runs: Sequence[SweepRun], rates: Mapping[Net, float], slots: int) -> Iterator[Lines]:
    """What suits stdout; see `Lines` for the arguments."""
    with contextlib.redirect_stdout(_WithoutRay(sys.stdout)):
        if not sys.stdout.isatty():
            yield Lines(runs, rates, slots)
            return
        from rich.live import Live

        shown = LiveTable(runs, rates, slots)
        with Live(auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as shown.live:
            yield shown


class _WithoutRay:
    """Stdout without what Ray's threads print there of lost workers and nodes, which the driver reports.

    When the terminal is closed, nothing more is written: its SIGHUP ends the sweep in good order.
    """

    def __init__(self, stdout: Any):
        self._stdout = stdout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)

    def write(self, text: str) -> int:
        if not threading.current_thread().name.startswith("ray_"):
            with contextlib.suppress(OSError):
                self._stdout.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stdout.flush()


def plan_table(runs: Sequence[SweepRun], rates: Mapping[Net, float]) -> str:
    """What is to be trained: one line per experiment, whatever the number of its seeds."""
    experiments: dict[str, list[SweepRun]] = {}
    for run in runs:
        experiments.setdefault(run.run.config.experiment, []).append(run)
    table = []
    for name, members in experiments.items():
        states = Counter("begun" if r.state == "waiting" and r.step else r.state for r in members)
        hours = sum(run.hours_left(rates) or 0.0 for run in members)
        table.append({
            "experiment": name,
            "runs": ", ".join(f"{count} {state}" for state, count in states.items()),
            "updates": f"{members[0].run.recipe.steps:,}",
            "time": console.duration(3600 * hours) if hours else "-",
        })  # fmt: skip
    return text_table(table)


def results_table(runs: Sequence[SweepRun]) -> str:
    """The report's table of the finished runs."""
    finished = [rows.read_record(run.run.folder.path) for run in runs if run.state == "finished"]
    grouped = rows.group(finished)[0]
    return text_table([
        {"experiment": row.config.experiment, **{name: line[name] for name in RESULTS}}
        for row, line in zip(grouped, tables.table(grouped), strict=True)
    ])  # fmt: skip


def text_table(table: tables.Table) -> str:
    """A table as plain text."""
    lines = [list(line) for line in table[:1]] + [list(line.values()) for line in table]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _updates(run: SweepRun) -> str:
    return f"{run.step:,}/{run.run.recipe.steps:,}"


def _tenth(run: SweepRun) -> int:
    return 10 * run.step // run.run.recipe.steps
