"""Train many runs, several at once, on this machine or on a Ray cluster: every net with every seed.

    keras-resnet sweep --depth 20 56 --model resnet plain --runs 5
    keras-resnet sweep --preset paper-table --address auto     the five nets of the report, five seeds each

The same command again goes on where it stopped, and does nothing for finished runs. The flags are those of
train; six of them take several values. Needs: pip install -r requirements-sweep.txt
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sysconfig
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_resnet import console
from keras_resnet.commands import flags, terminal
from keras_resnet.data.datasets import folder_of
from keras_resnet.errors import UserError
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.sweep import cluster, drive, plan, table
from keras_resnet.sweep.run import Job
from keras_resnet.training.summary import write_summary

FAILED = 1  # exit code: some runs; the others finished
CHILD = ("-m", "keras_resnet.sweep.child", "train")
# What the user set for training goes with it to other machines.
FORWARDED = ("TF_", "KERAS_", "XLA_", "JAX_")
MOST = 10_000  # CPUs or GPUs per run


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    runs, left_out = _runs(arguments)
    for text in left_out:
        console.print_line(f"left out: {text}")
    cluster.require_ray()
    console.print_status("joining Ray" if arguments.address else "starting Ray")
    output = Path(runs[0].config.output_dir)
    files.make_folder(output)
    with cluster.connected(arguments.address), _token(output) as token:
        return _sweep(arguments, runs, token)


def _parser() -> argparse.ArgumentParser:
    parser = flags.ArgumentParser(
        prog="keras-resnet sweep",
        description=__doc__,
        formatter_class=flags.HelpFormatter,
    )
    flags.add_flags(parser, TrainConfig, several=plan.SEVERAL)
    parser.set_defaults(runs=None)
    parser.add_argument(
        "--preset",
        choices=("paper-table",),
        help="paper-table: ResNet-20, 56, 110 and Plain-20, 56, five seeds each",
    )
    parser.add_argument(
        "--address",
        metavar="auto|HOST:PORT",
        help="of a running Ray cluster (default: Ray is started on this machine for this command)",
    )
    parser.add_argument(
        "--cpus-per-run", type=_above_zero, default=1.0, metavar="CPUS",
        help="what a run takes of a node, and the threads of TensorFlow and PyTorch (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--gpus-per-run", type=_not_negative, metavar="GPUS",
        help="may be a part, as 0.25 (default: 1 where there are GPUs, else 0)",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be trained, and check the nodes"
    )
    return parser


def _sweep(arguments: argparse.Namespace, runs: list[plan.Run], token: Path) -> int:
    nodes = cluster.nodes()
    cpus, gpus = arguments.cpus_per_run, arguments.gpus_per_run
    if gpus is None:
        gpus = float(any(node.get("GPU", 0.0) >= 1 for node in nodes.values()))
    slots = plan.slots(nodes.values(), cpus, gpus)
    entries = drive.entries_of(runs, _job_maker(token, cpus, gpus))
    done = all(entry.state == "finished" for entry in entries)  # then nodes and data matter no more
    if not slots and arguments.address is None and not done:
        raise UserError(
            f"a run must fit on this machine. Received: --cpus-per-run {cpus:g}, --gpus-per-run "
            f"{gpus:g}; it has {_resources(nodes)}"
        )
    rates = plan.known_rates(token.parent)
    everything: Job = {
        **entries[0].job,
        "data": sorted({folder for entry in entries for folder in entry.job["data"]}),
    }
    if not done:
        cluster.check_nodes(everything, cpus, gpus)
    _print_plan(
        entries, rates, slots, f"{_count(len(nodes), 'node')} with {_resources(nodes)}", cpus, gpus
    )
    if arguments.dry_run:
        return 0
    with table.watching(rates, slots) as watcher:
        order = plan.longest_first(entry.run for entry in entries)
        ordered = sorted(entries, key=lambda entry: order.index(entry.run))
        received = drive.Driver(ordered, cpus, gpus, watcher).work()
    return _conclude(entries, received)


def _runs(arguments: argparse.Namespace) -> tuple[list[plan.Run], list[str]]:
    """The runs that the flags ask for, with folders that mean the same on every node."""
    given = {name: getattr(arguments, name) for name in plan.SEVERAL}
    several = {name: values for name, values in given.items() if values is not None}
    nets: list[dict[str, Any]] = [{}]
    if arguments.preset:
        clash = [f"--{name}" for name in ("model", "depth", "shortcut") if name in several]
        if clash:
            raise UserError(
                f"--preset {arguments.preset} names the nets; leave out {' and '.join(clash)}"
            )
        nets = list(plan.PAPER_TABLE)
    runs = arguments.runs
    if runs is None:
        runs = plan.PAPER_SEEDS if arguments.preset else 1
    fixed = {
        field.name: getattr(arguments, field.name)
        for field in dataclasses.fields(TrainConfig)
        if field.name not in plan.SEVERAL
    }
    defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
    combined = [
        {**{"depth": defaults["depth"]}, **net, **values}
        for net in nets
        for values in plan.product(several)
    ]
    fixed |= {"runs": runs, "output_dir": _absolute(arguments.output_dir)}
    if arguments.data_dir is not None:
        fixed["data_dir"] = _absolute(arguments.data_dir)
    return plan.combine(fixed, combined)


def _job_maker(token: Path, cpus: float, gpus: float) -> Callable[[plan.Run], Job]:
    installed = Path(sysconfig.get_paths()["purelib"])
    root = Path(__file__).resolve().parents[2]

    def job_of(member: plan.Run) -> Job:
        data = _data_folder(member.config)
        config = dataclasses.replace(member.config, data_dir=str(data.parent) if data else None)
        return {
            "command": [*CHILD, *flags.flags_of(config)],
            "root": None if root == installed else str(root),
            "log": str(member.log),
            "token": str(token),
            "data": [str(data)] if data else [],
            "environment": {k: v for k, v in os.environ.items() if k.startswith(FORWARDED)},
            "threads": max(1, round(cpus)),
            "share": 0 < gpus < 1,
        }

    return job_of


def _data_folder(config: TrainConfig) -> Path | None:
    """Where a run's data set must lie; None for one that is drawn."""
    if config.dataset == "synthetic":
        return None
    return Path(_absolute(str(folder_of(config.dataset, config.data_dir)))) / config.dataset


@contextmanager
def _token(output: Path) -> Iterator[Path]:
    """A file in the output folder that this process holds: by it, other nodes are tried."""
    files.remove_unheld(output, ".sweep-*")  # of drivers that were killed
    with files.held_file(output / f".sweep-{uuid.uuid4().hex[:12]}") as path:
        yield path


def _print_plan(
    entries: Sequence[drive.Entry],
    rates: dict[tuple[Any, ...], float],
    slots: int,
    where: str,
    cpus: float,
    gpus: float,
) -> None:
    names, cells = ["run", "state", "updates", "time"], []
    for entry in entries:
        at = entry.at
        hours = plan.hours_left(entry.run, at, rates.get(plan.net_of(entry.run.config)))
        state = {
            "new": "to do", "begun": f"to resume from {plan.saved(entry.run):,}", "finished": "finished",
            "refused": f"refused: {at.why}",
        }[at.state]  # fmt: skip
        told = "-" if not hours or at.state == "refused" else console.duration(3600 * hours)
        cells.append([entry.run.name, state, f"{entry.run.steps:,}", told])
    console.print_line(table.columns(names, cells))
    room = f"{slots} at once" if slots else "none at once yet, as nodes join"
    share = _count(cpus, "CPU") + (f" and {_count(gpus, 'GPU')}" if gpus else "")
    console.print_line(f"{room}: {share} per run, on {where}")
    console.print_line(
        table.counts(entries, rates, slots)
        + (f", at the images/s of runs in {entries[0].run.config.output_dir}" if rates else "")
    )


def _conclude(entries: Sequence[drive.Entry], received: int) -> int:
    """Print what came out; returns the exit code."""
    experiments = {}
    for entry in entries:
        if entry.state == "finished":
            experiments[entry.run.folder.path.parent] = entry.run.folder
    for experiment, folder in experiments.items():
        # The last two of an experiment may have ended at the same moment, each unaware of the other.
        if config := folder.read_config():
            write_summary(experiment, config)
    if text := table.results(entries):
        console.print_line("")
        console.print_result(text)
    failed = [entry for entry in entries if entry.state == "failed"]
    for entry in failed:
        console.print_error(
            f"failed: {terminal.with_flags(entry.run.name + ': ' + entry.why)} (log: {entry.run.log})"
        )
    left = sum(entry.state not in ("finished", "failed") for entry in entries)
    if received and left:
        console.print_error(
            f"stopped by signal {received}: {left} of {len(entries)} runs are not finished, the same "
            "command goes on"
        )
        return 128 + received
    if failed:
        console.print_error(f"error: {len(failed)} of {len(entries)} runs failed")
        return FAILED
    return 0


def _resources(nodes: dict[str, Any]) -> str:
    total = {name: sum(node.get(name, 0.0) for node in nodes.values()) for name in ("CPU", "GPU")}
    return _count(total["CPU"], "CPU") + (
        f", {_count(total['GPU'], 'GPU')}" if total["GPU"] else ""
    )


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}" + ("" if number == 1 else "s")


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _above_zero(text: str) -> float:
    value = _not_negative(text)
    if not value:
        raise argparse.ArgumentTypeError(f"must be above 0. Received: {text}")
    return value


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to {MOST}. Received: {text}")
    if value > 1 and not value.is_integer():  # Ray's rule
        raise argparse.ArgumentTypeError(f"must be whole where it is above 1. Received: {text}")
    return value
