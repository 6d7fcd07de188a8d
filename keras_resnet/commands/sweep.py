"""Train many runs, several at once, on this machine or on a Ray cluster.

    keras-resnet sweep --depth 20 56 --model resnet plain --runs 5
    keras-resnet sweep --learning-rate 0.05 0.1 --weight-decay 1e-4 5e-4
    keras-resnet sweep --preset paper-table --address auto

Trains all combinations of the given values, each with all seeds. The preset is
the five nets of the PyTorch reproduction, five seeds each. The same command
again goes on where it stopped. The flags are those of train; many of them take
several values.

Needs: pip install -e '.[sweep]'
"""

import argparse
import contextlib
import dataclasses
import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_resnet import console
from keras_resnet.commands import flags, terminal
from keras_resnet.commands.train import HINTS, asked_recipe
from keras_resnet.data.constants import DATASETS
from keras_resnet.data.datasets import folder_of
from keras_resnet.errors import UserError
from keras_resnet.report.rows import PYTORCH_ERRORS
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.run import refuse_output_among_images, write_summary
from keras_resnet.sweep import cluster, plan, table
from keras_resnet.sweep.plan import SweepRun
from keras_resnet.sweep.task import Job
from keras_resnet.training.signals import signal_name

FAILED = 1  # exit code: some runs have failed, the others are finished
COMMAND = ["-m", "keras_resnet.sweep.task", "train"]
FORWARDED = ("TF_", "KERAS_", "XLA_", "JAX_")  # variables that go with a run to its node
GIB = 1 << 30


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser(argv).parse_args(argv)
    runs = asked_runs(arguments)
    for run in runs:
        refuse_output_among_images(run.run.config)
    output = Path(runs[0].run.config.output_dir)
    # By this lock, nodes see whether they share the folder.
    locked = contextlib.nullcontext() if arguments.dry_run else files.lock(output)
    console.print_status("joining Ray" if arguments.address else "starting Ray")
    with locked, cluster.connected(arguments.address):
        for run in runs:
            run.look()
        share = choose_share(arguments)
        amounts = [
            f"{n / GIB:.3g} GiB" if k == "memory" else f"{n:g} {k}" for k, n in share.items()
        ]
        slots, per_run = cluster.count_slots(share), ", ".join(amounts) or "nothing"
        if not slots and arguments.address is None:
            raise UserError(
                f"a run must fit on this machine. Received: {per_run} per run; take less with "
                "--cpus-per-run and the like"
            )
        console.print_line(table.format_progress(runs, slots))
        console.print_line(f"{slots} at once, with {per_run} per run")
        if arguments.dry_run:
            return FAILED if _print_failed(runs) else 0
        for run in runs:
            run.job = make_job(run, share)
        from keras_resnet.sweep.driver import Driver  # it imports Ray

        with table.show_live(runs, slots) as refresh:
            received = Driver(runs, share, refresh).work()
    return conclude(runs, received)


def make_parser(argv: Sequence[str] | None) -> argparse.ArgumentParser:
    recipe, depth = asked_recipe(argv, {})
    parser = flags.ArgumentParser(
        prog="keras-resnet sweep",
        usage="%(prog)s [flags]",
        description=__doc__,
        epilog=f"Defaults are those of recipe {recipe.name} at {depth} layers.",
        hints=HINTS,
    )
    flags.add_flags(parser, recipe.settings(), several=plan.SEVERAL)
    parser.set_defaults(runs=None)
    add = parser.add_argument_group("sweep").add_argument
    # fmt: off
    add("--preset", choices=("paper-table",), help="ResNet-20, 56, 110 and Plain-20, 56, five seeds each")
    add("--address", metavar="auto|HOST:PORT",
        help="a running Ray cluster (default: start Ray on this machine for this command)")
    add("--cpus-per-run", type=amount, default=1.0, metavar="CPUS",
        help="CPUs of a node that a run takes, and threads of TensorFlow and PyTorch (default: 1)")
    add("--gpus-per-run", type=amount, metavar="GPUS",
        help="GPUs that a run takes; may be a fraction, e.g. 0.25 (default: 1 if there are GPUs, else 0)")
    add("--tpus-per-run", type=amount, metavar="CHIPS",
        help="TPU chips that a run takes (default: 1 if there are TPUs, else 0)")
    add("--memory-per-run", type=float, default=0.0, metavar="GIB",
        help="main memory that a node keeps for a run (default: memory is not counted)")
    add("--dry-run", action="store_true", help="print what would be trained, and train nothing")
    # fmt: on
    return parser


def amount(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 10_000 or (value > 1 and not value.is_integer()):  # Ray's rule
        raise argparse.ArgumentTypeError(f"must be below 1 or whole. Received: {text}")
    return value


def asked_runs(arguments: argparse.Namespace) -> list[SweepRun]:
    """The runs that the flags ask for, in folders whose paths mean the same on every node."""
    given = {key: getattr(arguments, key) for key in TrainConfig.__dataclass_fields__}
    several = {key: given.pop(key) for key in plan.SEVERAL}
    several = {key: values for key, values in several.items() if values is not None}
    if arguments.preset and {"model", "depth"} & several.keys():
        raise UserError("--preset names the nets: leave out --model and --depth")
    if given["runs"] is None:
        given["runs"] = plan.PAPER_SEEDS if arguments.preset else 1
    for key in ("output_dir", "data_dir", "weights"):
        if given[key] is not None and (key != "weights" or os.path.exists(given[key])):
            given[key] = os.path.abspath(os.path.expanduser(given[key]))
    nets = tuple(PYTORCH_ERRORS) if arguments.preset else ()
    return [SweepRun(run) for run in plan.plan_runs(given, several, nets)]


def choose_share(arguments: argparse.Namespace) -> dict[str, float]:
    """What one run takes of a node, as Ray counts it; memory in bytes."""
    import ray

    if not 0 <= arguments.memory_per_run < float("inf"):
        raise UserError(f"`memory_per_run` must be 0 or more. Received: {arguments.memory_per_run}")
    share = {"CPU": arguments.cpus_per_run, "memory": arguments.memory_per_run * GIB}
    for name, given in (("GPU", arguments.gpus_per_run), ("TPU", arguments.tpus_per_run)):
        share[name] = float(name in ray.cluster_resources()) if given is None else given
    return {name: amount for name, amount in share.items() if amount > 0}


def make_job(run: SweepRun, share: Mapping[str, float]) -> Job:
    config, data = run.run.config, None
    if config.dataset != "synthetic":
        folder = os.path.abspath(folder_of(config.dataset, config.data_dir))
        config = dataclasses.replace(config, data_dir=folder)
        data = glob.escape(os.path.join(folder, config.dataset))
        data += "/*/dataset_info.json" if config.dataset in DATASETS else ""
    environment = {"TF_NUM_INTRAOP_THREADS": str(max(1, round(share.get("CPU", 1))))}
    if share.get("GPU", 1) < 1:  # runs share it: reserve its memory only as it is needed
        environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    environment |= {name: v for name, v in os.environ.items() if name.startswith(FORWARDED)}
    environment["PYTHONPATH"] = os.getcwd()  # for a `model` of the user's own
    environment["KERAS_DISTRIBUTION_NUM_PROCESSES"] = "1"  # alone, whatever Slurm or a TPU pod says
    command = [*COMMAND, *flags.flags_of(config)]
    return Job(command, str(run.log), config.output_dir, data, environment)


def conclude(runs: Sequence[SweepRun], received: int) -> int:
    """Print what came out; returns the exit code."""
    finished = {run.run.config.experiment: run.run for run in runs if run.state == "finished"}
    for run in finished.values():
        write_summary(run)  # two runs that end at the same moment may each miss the other
    if finished:
        console.print_result(f"\n{table.format_results(runs)}")
    failed = _print_failed(runs)
    left = sum(not run.ended for run in runs)
    if received and left:
        console.print_error(
            f"stopped by {signal_name(received)}: {left} of {len(runs)} runs are not finished, the same "
            "command goes on"
        )
        return 128 + received
    if failed:
        console.print_error(f"error: {failed} of {len(runs)} runs failed")
    return FAILED if failed else 0


def _print_failed(runs: Sequence[SweepRun]) -> int:
    """Print why runs failed; returns how many did."""
    failed = [run for run in runs if run.state == "failed"]
    for run in failed:
        log = f" (log: {run.log})" if run.log.exists() else ""  # none where it did not begin
        console.print_error(terminal.with_flags(f"failed: {run.run}: {run.why}{log}"))
    return len(failed)
