"""How fast does each Keras backend train, against what it would be without us and another version of us?

    pip install -r requirements-torch.txt -r requirements-jax.txt        beside requirements.txt
    python -m benchmarks.backends --baseline CHECKOUT                    about 12 minutes on 2 cores
    python -m benchmarks.backends --only tensorflow_to_baseline --baseline CHECKOUT
    python -m benchmarks.backends --quick                                about 2 minutes

ResNet-20, batch 128. Writes backends.json and prints its tables.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import timing

BATCH_SIZE = 128
FLOAT32 = {"precision": "float32"}
CONTENDERS: dict[str, dict[str, Any]] = {
    "tensorflow": {"backend": "tensorflow"},
    "baseline": {"backend": "tensorflow"},  # of the checkout that --baseline names
    "torch": {"backend": "torch", **FLOAT32},
    "torch_auto": {"backend": "torch"},
    "torch_alone": {"contender": "torch_training", "backend": "torch", **FLOAT32},
    "jax": {"backend": "jax", **FLOAT32},
    "jax_stock": {"backend": "jax", **FLOAT32, "stock": True},  # Keras's BatchNormalization
    "jax_stock_again": {"backend": "jax", **FLOAT32, "stock": True},
}
RATIOS = {
    "tensorflow_to_baseline": ("tensorflow", "baseline"),
    "torch_to_torch_alone": ("torch", "torch_alone"),
    "jax_to_stock": ("jax", "jax_stock"),
    "jax_stock_to_itself": ("jax_stock_again", "jax_stock"),  # how far two equal processes differ
    "torch_to_tensorflow": ("torch_auto", "tensorflow"),
    "jax_to_tensorflow": ("jax", "tensorflow"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = timing.argument_parser(__doc__, rounds=40, seconds=2.0)
    add = parser.add_argument
    add("--baseline", type=Path, metavar="CHECKOUT", help="clone of another commit of this project")
    add("--only", nargs="+", choices=RATIOS, default=list(RATIOS), help="ratios to measure")
    add("--jax-python", default=sys.executable, help="Python that has JAX (default: this)")
    arguments = timing.parse(parser, argv)
    data = timing.find_data(arguments)
    result = timing.facts(arguments, data)
    pythons = {"torch": arguments.torch_python, "jax": arguments.jax_python}
    pairs = {name: RATIOS[name] for name in arguments.only}
    if arguments.baseline:
        checkout = str(arguments.baseline.resolve())
        git = ["git", "-C", checkout, "rev-parse", "HEAD"]
        result["baseline_commit"] = subprocess.check_output(git, text=True).strip()
    else:
        pairs.pop("tensorflow_to_baseline", None)
    wanted = {name for pair in pairs.values() for name in pair}
    common = {"contender": "keras_training", "depth": 8 if arguments.quick else 20, **data}
    common["batch_size"] = BATCH_SIZE
    specs = {name: {**common, **CONTENDERS[name]} for name in CONTENDERS if name in wanted}
    for spec in specs.values():
        spec["python"] = pythons.get(spec["backend"], sys.executable)
    if "baseline" in specs:
        specs["baseline"]["checkout"] = checkout
    with ExitStack() as stack:
        workers = timing.start(stack, specs)
        rates, others = timing.interleave(workers, arguments.rounds, arguments.seconds)
    for name, worker in workers.items():
        if name != "baseline":
            result["versions"] |= worker.facts["versions"]
    result |= {
        "precision": {name: worker.facts["precision"] for name, worker in workers.items()},
        "images_per_second": {
            name: timing.summary([BATCH_SIZE * rate for rate in rates[name]]) for name in rates
        },
        "ratios": {name: timing.ratio(rates[a], rates[b]) for name, (a, b) in pairs.items()},
        "cpu_of_others_percent": others,
    }
    timing.write(result, arguments.output / "backends.json")
    print(text(result))
    return 0


def text(result: dict[str, Any]) -> str:
    """The result as tables in Markdown."""
    speeds = [
        [name, result["precision"][name], timing.text_of(rate, 0)]
        for name, rate in result["images_per_second"].items()
    ]
    ratios = [
        [name, timing.text_of(ratio), f"{ratio['mean']:.3f} ± {ratio['standard_error'] or 0:.3f}"]
        for name, ratio in result["ratios"].items()
    ]
    return "\n".join(
        [
            timing.describe(result, result["cpu_of_others_percent"]),
            timing.table(["contender", "precision", "images/s"], speeds),
            timing.table(["ratio", "median (min..max)", "mean ± standard error"], ratios),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
