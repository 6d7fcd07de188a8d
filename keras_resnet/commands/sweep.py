"""Train many runs, several at once, on this machine or on a Ray cluster: all combinations with all seeds.

    keras-resnet sweep --depth 20 56 --model resnet plain --runs 5
    keras-resnet sweep --learning-rate 0.05 0.1 --weight-decay 1e-4 5e-4
    keras-resnet sweep --preset paper-table --address auto     the five nets of the report, five seeds each

The same command again goes on where it stopped, and does nothing for finished runs. The flags are those of
train; many of them take several values. Needs: pip install '.[sweep]'
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import filelock

from keras_resnet import console
from keras_resnet.commands import flags, terminal
from keras_resnet.data.datasets import folder_of
from keras_resnet.errors import UserError
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.run import Run, write_summary
from keras_resnet.sweep import cluster, plan, table
from keras_resnet.sweep.driver import Driver
from keras_resnet.sweep.plan import SweepRun
from keras_resnet.sweep.task import Job

FAILED = 1  # exit code: some runs have failed, the others are finished
COMMAND = ("-m", "keras_resnet.sweep.task", "train")
FORWARDED = ("TF_", "KERAS_", "XLA_", "JAX_")  # variables that go with a run to its node
GIB = 1 << 30


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    runs, left_out = _runs(arguments)
    for text in left_out:
        console.print_line(f"left out: {text}")
    if not arguments.dry_run:  # an error here, where the folder cannot be written to
        files.write_atomic(Path(runs[0].config.output_dir) / ".sweep-test", "")
    console.print_status("joining Ray" if arguments.address else "starting Ray")
    with cluster.connected(arguments.address):
        return _sweep(arguments, [SweepRun(run) for run in runs])


def _parser() -> argparse.ArgumentParser:
    parser = flags.ArgumentParser(
        prog="keras-resnet sweep", description=__doc__, formatter_class=flags.HelpFormatter
    )
    flags.add_flags(parser, TrainConfig, several=plan.SEVERAL)
    parser.set_defaults(runs=None)
    add = parser.add_argument_group("sweep").add_argument
    # fmt: off
    add("--preset", choices=("paper-table",), help="ResNet-20, 56, 110 and Plain-20, 56, five seeds each")
    add("--address", metavar="auto|HOST:PORT",
        help="of a running Ray cluster (default: Ray is started on this machine for this command)")
    add("--cpus-per-run", type=_amount, default=1.0, metavar="CPUS",
        help="what a run takes of a node, and the threads of TensorFlow and PyTorch (default: 1)")
    add("--gpus-per-run", type=_amount, metavar="GPUS",
        help="may be a part, as 0.25 (default: 1 where there are GPUs, else 0)")
    add("--tpus-per-run", type=_amount, metavar="CHIPS", help="(default: 1 where there are TPUs, else 0)")
    add("--memory-per-run", type=float, default=0.0, metavar="GIB",
        help="main memory that a node keeps for a run (default: memory is not counted)")
    add("--dry-run", action="store_true", help="print what would be trained, and train nothing")
    # fmt: on
    return parser


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 10_000 or (value > 1 and not value.is_integer()):  # Ray's rule
        raise argparse.ArgumentTypeError(f"must be below 1 or whole. Received: {text}")
    return value


def _runs(arguments: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """The runs that the flags ask for, in folders whose paths mean the same on every node."""
    given = {
        field.name: getattr(arguments, field.name) for field in dataclasses.fields(TrainConfig)
    }
    several = {name: given[name] for name in plan.SEVERAL if given[name] is not None}
    shared = {name: value for name, value in given.items() if name not in plan.SEVERAL}
    nets: Sequence[Mapping[str, object]] = ({},)
    if arguments.preset:
        if clash := [f"--{name}" for name in ("model", "depth", "shortcut") if name in several]:
            raise UserError(f"--preset names the nets; leave out {' and '.join(clash)}")
        nets = plan.PAPER_TABLE
    if shared["runs"] is None:
        shared["runs"] = plan.PAPER_SEEDS if arguments.preset else 1
    for name in ("output_dir", "data_dir"):
        if shared[name] is not None:
            shared[name] = os.path.abspath(os.path.expanduser(shared[name]))
    return plan.plan_runs(shared, several, nets)


def _sweep(arguments: argparse.Namespace, runs: list[SweepRun]) -> int:
    for run in runs:
        run.look()
    output = Path(runs[0].run.config.output_dir)
    nodes = list(cluster.living_nodes().values())
    share = _share(arguments, nodes)
    slots, rates = plan.count_slots(nodes, share), plan.known_rates(output)
    todo = [run for run in runs if run.state == "waiting"]
    if todo and not slots and arguments.address is None:
        raise UserError(
            f"a run must fit on this machine, which has {_amounts(nodes[0])}. Received: "
            f"{_amounts(share)} per run; take less of it with --cpus-per-run and the like"
        )
    console.print_line(table.plan_table(runs, rates))
    at_once = f"{slots} at once" if slots else "none at once until a node joins"
    count = f"{len(nodes)} node{'s' * (len(nodes) > 1)}"
    console.print_line(f"{at_once}: {_amounts(share)} per run, on {count}")
    console.print_line(table.Lines(runs, rates, slots).counts())
    if arguments.dry_run:
        return 0
    with _token(output) as token, table.watching(runs, rates, slots) as shown:
        for run in todo:
            run.job = _job(run, token, share)
        received = Driver(runs, share, shown).work()
    return _conclude(runs, received)


@contextlib.contextmanager
def _token(output: Path) -> Iterator[Path]:
    """A locked file in the output folder, by which nodes see whether they share it."""
    for old in output.glob(".sweep-*"):  # of drivers that were killed
        with contextlib.suppress(OSError, filelock.Timeout), filelock.FileLock(old, blocking=False):
            old.unlink()
    path = output / f".sweep-{uuid.uuid4().hex[:12]}"
    try:
        with filelock.FileLock(path):
            yield path
    finally:
        path.unlink(missing_ok=True)


def _share(arguments: argparse.Namespace, nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What one run takes of a node, as Ray counts it; memory in bytes."""
    share = {"CPU": arguments.cpus_per_run, "memory": arguments.memory_per_run * GIB}
    for name, given in (("GPU", arguments.gpus_per_run), ("TPU", arguments.tpus_per_run)):
        exists = any(node.get(name, 0.0) >= 1 for node in nodes)
        share[name] = float(exists) if given is None else given
    share = {name: amount for name, amount in share.items() if amount > 0}
    if not share:
        raise UserError("a run must take something of a node: --cpus-per-run must be above 0")
    return share


def _amounts(resources: Mapping[str, float]) -> str:
    shown = [f"{resources[name]:g} {name}" for name in ("CPU", "GPU", "TPU") if name in resources]
    memory = resources.get("memory")
    return ", ".join(shown + [f"{memory / GIB:.1f} GiB"] if memory else shown)


def _job(run: SweepRun, token: Path, share: Mapping[str, float]) -> Job:
    config, data = run.run.config, None
    if config.dataset != "synthetic":
        folder = os.path.abspath(folder_of(config.dataset, config.data_dir))
        config = dataclasses.replace(config, data_dir=folder)
        data = os.path.join(folder, config.dataset)
    environment = {"TF_NUM_INTRAOP_THREADS": str(max(1, round(share.get("CPU", 1))))}
    if 0 < share.get("GPU", 0) < 1:  # the GPU is shared: take its memory as it is needed
        environment |= {
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
    environment |= {name: v for name, v in os.environ.items() if name.startswith(FORWARDED)}
    environment["KERAS_DISTRIBUTION_NUM_PROCESSES"] = "1"  # alone, whatever Slurm or a TPU pod says
    return {
        "command": [*COMMAND, *flags.flags_of(config)],
        "log": str(run.log),
        "token": str(token),
        "data": data,
        "environment": environment,
    }


def _conclude(runs: Sequence[SweepRun], received: int) -> int:
    """Print what came out; returns the exit code."""
    finished = {run.run.config.experiment: run.run for run in runs if run.state == "finished"}
    for run in finished.values():
        write_summary(run)  # two runs that end at the same moment may each miss the other
    if finished:
        console.print_result(f"\n{table.results_table(runs)}")
    failed = [run for run in runs if run.state == "failed"]
    for member in failed:
        why = terminal.with_flags(f"{member}: {member.why}")
        console.print_error(f"failed: {why} (log: {member.log})")
    left = sum(run.state not in ("finished", "failed") for run in runs)
    if received and left:
        console.print_error(
            f"stopped by signal {received}: {left} of {len(runs)} runs are not finished, the same "
            "command goes on"
        )
        return 128 + received
    if failed:
        console.print_error(f"error: {len(failed)} of {len(runs)} runs failed")
        return FAILED
    return 0
