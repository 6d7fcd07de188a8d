"""Training on Keras's three backends on this machine's CPU, against what each would be without us.

    pip install -r requirements-torch.txt -r requirements-jax.txt       beside requirements.txt
    python benchmarks/backends.py --baseline CHECKOUT                   about 12 minutes on 2 cores

ResNet-20, batch 128; every contender is a process of its own, and all take short turns, interleaved:

- TensorFlow, at the precision it chooses, against the same of another commit (CHECKOUT, a clone of it);
- PyTorch, float32, against an eager float32 loop written with PyTorch alone (torch_nets.py);
- JAX, float32, against the same with Keras's own batch normalization; and the latter against itself.

Writes backends.json. Let nothing else run meanwhile: what other processes took is in the file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measure, run  # noqa: E402
from benchmarks.measure import Worker  # noqa: E402
from keras_resnet.commands import flags, terminal  # noqa: E402
from keras_resnet.errors import UserError  # noqa: E402
from keras_resnet.runs import files  # noqa: E402

DEPTH, BATCH = 20, 128
# Contender of a worker, and its backend.
CONTENDERS = {
    "tensorflow": ("ours_auto", "tensorflow"),
    "torch": ("ours_float32", "torch"),
    "torch_auto": ("ours_auto", "torch"),
    "torch_eager": ("torch_float32", "tensorflow"),
    "jax": ("ours_float32", "jax"),
    "jax_stock": ("stock_float32", "jax"),
    "jax_stock_again": ("stock_float32", "jax"),
}
RATIOS = {
    "tensorflow_to_baseline": ("tensorflow", "baseline"),
    "torch_to_eager": ("torch", "torch_eager"),
    "jax_to_stock": ("jax", "jax_stock"),
    "jax_stock_to_itself": ("jax_stock_again", "jax_stock"),  # how far two equal processes differ
    "torch_to_tensorflow": ("torch_auto", "tensorflow"),
    "jax_to_tensorflow": ("jax", "tensorflow"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--baseline", type=Path, metavar="CHECKOUT", help="clone of another commit of this project")
    add("--only", nargs="+", choices=RATIOS, metavar="RATIO", help=f"of {', '.join(RATIOS)}")
    add("--rounds", type=int, default=40, help="turns of each contender (default: %(default)s)")
    add("--seconds", type=float, default=2.0, help="of a turn, at least (default: %(default)s)")
    add("--data-dir", help="folder of tensorflow_datasets (default: $TFDS_DATA_DIR)")
    add("--output", type=Path, default=measure.ROOT / "benchmarks", help="(default: benchmarks/)")
    arguments = parser.parse_args(argv)
    for package in ("jax", "torch"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"the benchmark needs {package}: pip install -r requirements-{package}.txt"
            )
    try:
        result = _measure(arguments)
    except measure.WorkerFailed as error:
        raise UserError(str(error), exit_code=1) from None
    files.make_folder(arguments.output)
    files.write_json(arguments.output / "backends.json", result)
    for name, rate in result["images_per_second"].items():
        print(f"{name:15} {rate['median']:7.0f} images/s ({rate['min']:.0f}..{rate['max']:.0f})")
    for name, ratio in result["ratios"].items():
        spread = f" +- {ratio['standard_error']:.3f}" if "standard_error" in ratio else ""
        print(
            f"{name}: {ratio['median']:.3f} ({ratio['min']:.2f}..{ratio['max']:.2f}); "
            f"mean {ratio['mean']:.3f}{spread}"
        )
    print(f"other processes took {result['cpu_of_others_percent']} % of the CPU time")
    return 0


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    dataset, data_dir = run.find_data(arguments.data_dir)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        prepare = {"folder": folder, "dataset": dataset, "data_dir": data_dir, "depths": []}
        with Worker({"contender": "prepare", **prepare}) as worker:
            result = run.facts_of_run(worker.ready())
        result["versions"] |= {p: importlib.metadata.version(p) for p in ("jax", "torch")}
        spec = {"depth": DEPTH, "batch": BATCH, "folder": folder}
        wanted = {name for ratio in arguments.only or RATIOS for name in RATIOS[ratio]}
        workers = {
            name: stack.enter_context(Worker({"contender": contender, "backend": backend, **spec}))
            for name, (contender, backend) in CONTENDERS.items()
            if name in wanted
        }
        if arguments.baseline and "baseline" in wanted:
            checkout = str(arguments.baseline.resolve())
            result["baseline_commit"] = subprocess.run(
                ["git", "-C", checkout, "rev-parse", "HEAD"],
                check=True, capture_output=True, text=True,
            ).stdout.strip()  # fmt: skip
            old = Worker({"contender": "ours_auto", "checkout": checkout, **spec})
            workers["baseline"] = stack.enter_context(old)
        facts = {name: worker.ready() for name, worker in workers.items()}
        rates, others = measure.interleave(workers, arguments.rounds, arguments.seconds)
    images = {name: [BATCH * rate for rate in found] for name, found in rates.items()}
    return result | {
        "settings": {"depth": DEPTH, "batch": BATCH, "rounds": arguments.rounds},
        "precision": {name: found.get("precision", "float32") for name, found in facts.items()},
        "images_per_second": {name: measure.summary(found) for name, found in images.items()},
        "ratios": {
            name: measure.ratio(images[one], images[other])
            for name, (one, other) in RATIOS.items()
            if one in images and other in images
        },
        "cpu_of_others_percent": others,
    }


if __name__ == "__main__":
    sys.exit(terminal.run(main))
