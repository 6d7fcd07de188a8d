"""What a sweep prints: a table of its experiments, live on a terminal, and the report's at the end."""

import contextlib
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from keras_resnet import console
from keras_resnet.report import rows, tables
from keras_resnet.sweep.plan import SweepRun

STATES = ("finished", "running", "waiting", "failed")
RESULTS = ("test error (%)", "runs", "He et al. (%)", "PyTorch (%)", "updates", "hours")


@contextlib.contextmanager
def show_live(runs: Sequence[SweepRun], slots: int) -> Iterator[Callable[[], None]]:
    """Give a function that updates the table below what is printed; without a terminal it does nothing."""
    if not sys.stdout.isatty():
        yield lambda: None
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        yield lambda: live.update(
            Text(format_progress(runs, slots), no_wrap=True, overflow="ellipsis"), refresh=True
        )


def format_progress(runs: Sequence[SweepRun], slots: int) -> str:
    """The progress: one line per experiment, with all its seeds, and a sum; `slots` train at once."""
    experiments: dict[str, list[SweepRun]] = {}
    for run in runs:
        experiments.setdefault(run.run.config.experiment, []).append(run)
    table, left = [], [0.0]
    for name, members in experiments.items():
        recipe, todo = members[0].run.recipe, [run for run in members if not run.ended]
        errors = [run.val_error for run in members if run.val_error is not None]
        rates = [run.rate for run in members if run.rate]
        rate = statistics.median(rates) if rates else math.inf
        seconds = [(recipe.steps - run.step) * recipe.batch_size / rate for run in todo]
        left += seconds
        table.append({
            "experiment": name,
            "runs": count_states(members),
            "updates": f"{sum(run.step for run in members):,}/{recipe.steps * len(members):,}",
            "val. %": f"{statistics.fmean(errors):.2f}" if errors else "-",
            "time left": console.duration(sum(seconds)) if any(seconds) else "-",
        })  # fmt: skip
    least = max(max(left), sum(left) / max(1, slots))  # runs whose rate is not known count as 0
    time = f"; at least {console.duration(least)} left" if least else ""
    return f"{format_table(table)}\n\n{count_states(runs)}{time}"


def count_states(runs: Sequence[SweepRun]) -> str:
    """E.g. `"2 finished, 8 running, 15 waiting"`."""
    states = Counter[str](run.state for run in runs)
    return ", ".join(f"{states[state]:,} {state}" for state in STATES if states[state])


def format_results(runs: Sequence[SweepRun]) -> str:
    """The report's table of the finished runs."""
    finished = [rows.read_record(run.run.folder.path) for run in runs if run.state == "finished"]
    grouped = rows.group(finished)[0]
    return format_table([
        {"experiment": row.config.experiment, **{name: line[name] for name in RESULTS}}
        for row, line in zip(grouped, tables.make_table(grouped), strict=True)
    ])  # fmt: skip


def format_table(table: tables.Table) -> str:
    """A table as plain text."""
    lines = [list(table[0]), *(list(line.values()) for line in table)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
