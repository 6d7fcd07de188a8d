"""How fast does each Keras backend train: against itself without us, and against another version of us?

    pip install -e '.[torch,jax]'        beside requirements.txt
    python -m benchmarks.backends --baseline CHECKOUT                    about 12 minutes on 2 cores
    python -m benchmarks.backends --only tensorflow baseline --baseline CHECKOUT

Batch 128. Writes backends.json and prints its tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing

FLOAT32 = {"precision": "float32"}
CONTENDERS: dict[str, dict[str, Any]] = {
    "tensorflow": {"backend": "tensorflow"},
    "baseline": {"backend": "tensorflow"},  # of the checkout that --baseline names
    "torch": {"backend": "torch"},
    "torch_float32": {"backend": "torch", **FLOAT32},
    "torch_alone": {"contender": "torch_training", "backend": "torch", **FLOAT32},
    "jax": {"backend": "jax", **FLOAT32},
    "jax_stock": {"backend": "jax", **FLOAT32, "stock": True},  # Keras's BatchNormalization
    "jax_stock_again": {"backend": "jax", **FLOAT32, "stock": True},
}
PAIRS = (
    ("tensorflow", "baseline"),
    ("torch_float32", "torch_alone"),
    ("jax", "jax_stock"),
    ("jax_stock_again", "jax_stock"),  # how far two equal processes differ
    ("torch", "tensorflow"),
    ("jax", "tensorflow"),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = timing.argument_parser(__doc__, rounds=40, seconds=2.0, depths=[20])
    add = parser.add_argument
    add("--baseline", type=Path, metavar="CHECKOUT", help="clone of another commit of this project")
    add("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    arguments = timing.parse(parser, argv)
    contests = {}
    names = set(arguments.only) - (set() if arguments.baseline else {"baseline"})
    for depth in arguments.depths:
        common = {"contender": "keras_training", "depth": depth, "batch_size": 128}
        specs = {name: {**common, **spec} for name, spec in CONTENDERS.items() if name in names}
        if "baseline" in specs:
            specs["baseline"]["checkout"] = str(arguments.baseline.resolve())
        contests[f"training ResNet-{depth}"] = timing.contest(specs, PAIRS, arguments)
    timing.report(contests, "backends", arguments)


if __name__ == "__main__":
    main()
