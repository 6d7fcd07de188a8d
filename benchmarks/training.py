"""How fast does it train: against eager PyTorch, against stock Keras, and Muon against SGD?

    python -m benchmarks.training                     about 6 minutes on 2 cores
    python -m benchmarks.training --only muon sgd     about 2 minutes, needs no PyTorch

Keras runs on the backend that KERAS_BACKEND names. Writes training.json and prints its tables. Let nothing
else run: PyTorch's threads wait for each other and suffer most from other load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import timing

SGD = {"contender": "keras_training", "recipe": "fast-0.2"}
TORCH = {"contender": "torch_training", "backend": "torch"}
CONTENDERS: dict[str, dict[str, Any]] = {
    "sgd": SGD,
    "muon": {"contender": "keras_training", "recipe": "fast"},
    "sgd_float32": {**SGD, "precision": "float32"},
    # With Keras's own BatchNormalization in place of ours.
    "stock_float32": {**SGD, "precision": "float32", "stock": True},
    "torch_float32": {**TORCH, "precision": "float32"},
    "torch_bfloat16": {**TORCH, "precision": "bfloat16"},  # autocast, memory channels last
}
PAIRS = (
    ("muon", "sgd"),
    ("sgd", "torch_float32"),
    ("sgd", "torch_bfloat16"),
    ("sgd_float32", "torch_float32"),
    ("sgd_float32", "stock_float32"),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = timing.argument_parser(__doc__, rounds=7, seconds=1.5, depths=[20, 56])
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    arguments = timing.parse(parser, argv)
    contests = {}
    for depth in arguments.depths:
        specs = {
            name: {"depth": depth, "batch_size": 128, **CONTENDERS[name]} for name in arguments.only
        }
        contests[f"training ResNet-{depth}"] = timing.contest(specs, PAIRS, arguments)
    timing.report(contests, "training", arguments)


if __name__ == "__main__":
    main()
