"""How fast does it train: against eager PyTorch, stock Keras, other backends, another version of us?

    python -m benchmarks.training                     about 6 minutes on 2 cores
    python -m benchmarks.training --only muon sgd     about 2 minutes, needs no PyTorch
    python -m benchmarks.training --only paper baseline --baseline CHECKOUT     another commit
    python -m benchmarks.training --only paper keras_torch keras_jax jax_stock  other backends

Keras runs on the backend that KERAS_BACKEND names, where the contender's name has none. Writes
training.json and prints its tables. Let nothing else run: PyTorch's threads wait for each other and suffer
most from other load.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing

KERAS, FLOAT32 = {"contender": "keras_training"}, {"precision": "float32"}
SGD = {**KERAS, "recipe": "fast-0.2"}
TORCH = {"contender": "torch_training", "backend": "torch"}
JAX = {**KERAS, **FLOAT32, "backend": "jax"}
USUAL: dict[str, dict[str, Any]] = {
    "sgd": SGD,
    "muon": {**KERAS, "recipe": "fast"},
    "sgd_float32": {**SGD, **FLOAT32},
    # With Keras's own BatchNormalization in place of ours.
    "stock_float32": {**SGD, **FLOAT32, "stock": True},
    "torch_float32": {**TORCH, **FLOAT32},
    "torch_bfloat16": {**TORCH, "precision": "bfloat16"},  # autocast, memory channels last
}
CONTENDERS: dict[str, dict[str, Any]] = {
    **USUAL,
    "paper": KERAS,
    "baseline": KERAS,  # of the checkout that --baseline names
    "keras_torch": {**KERAS, "backend": "torch"},
    "keras_torch_float32": {**KERAS, **FLOAT32, "backend": "torch"},
    "keras_jax": JAX,
    "jax_stock": {**JAX, "stock": True},
    "jax_stock_again": {**JAX, "stock": True},  # how far two equal processes differ
}
PAIRS = (
    ("muon", "sgd"),
    ("sgd", "torch_float32"),
    ("sgd", "torch_bfloat16"),
    ("sgd_float32", "torch_float32"),
    ("sgd_float32", "stock_float32"),
    ("paper", "baseline"),
    ("keras_torch_float32", "torch_float32"),
    ("keras_jax", "jax_stock"),
    ("jax_stock_again", "jax_stock"),
    ("keras_torch", "paper"),
    ("keras_jax", "paper"),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = timing.argument_parser(__doc__, rounds=7, seconds=1.5, depths=[20, 56])
    add = parser.add_argument
    add("--only", nargs="+", choices=CONTENDERS, default=list(USUAL))
    add("--baseline", type=Path, metavar="CHECKOUT", help="clone of another commit of this project")
    arguments = timing.parse(parser, argv)
    if ("baseline" in arguments.only) != bool(arguments.baseline):
        parser.error("`--only baseline` and `--baseline CHECKOUT` must be given together")
    contests = {}
    for depth in arguments.depths:
        specs = {
            name: {"depth": depth, "batch_size": 128, **CONTENDERS[name]} for name in arguments.only
        }
        if arguments.baseline:
            specs["baseline"]["checkout"] = str(arguments.baseline.resolve())
        contests[f"training ResNet-{depth}"] = timing.contest(specs, PAIRS, arguments)
    timing.report(contests, "training", arguments)


if __name__ == "__main__":
    main()
