"""The machine's own peak: a product of two large square matrices."""

from __future__ import annotations

from typing import Any

from keras import ops, random

from benchmarks.worker import Turns

SIDE = 4096
FLOPS = 2 * SIDE**3


def run(spec: dict[str, Any], turns: Turns) -> None:
    """Multiply matrices of the spec's `dtype`."""
    a, b = (ops.cast(random.normal((SIDE, SIDE), seed=k), spec["dtype"]) for k in (1, 2))
    turns.facts["flops"] = FLOPS
    # One number read back waits for the product, also where a backend computes in the background.
    turns.repeat(lambda: float(ops.cast(ops.matmul(a, b)[0, 0], "float32")))
