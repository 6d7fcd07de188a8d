"""How fast does it train: against eager PyTorch, against stock Keras, and Muon against SGD?

    python -m benchmarks.training                     about 8 minutes on 2 cores
    python -m benchmarks.training --only muon sgd     about 2 minutes, needs no PyTorch
    python -m benchmarks.training --quick             about 2 minutes

Keras runs on the backend that KERAS_BACKEND names. Writes training.json and prints its tables. Let nothing
else run: PyTorch's threads wait for each other and suffer most from other load.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks import timing
from benchmarks.timing import Worker

BATCH_SIZE = 128
CONTENDERS: dict[str, dict[str, str | bool]] = {
    "sgd": {"contender": "keras_training", "recipe": "fast-0.2"},
    "muon": {"contender": "keras_training", "recipe": "fast"},
    "sgd_float32": {"contender": "keras_training", "recipe": "fast-0.2", "precision": "float32"},
    "stock_float32": {
        "contender": "keras_training", "recipe": "fast-0.2", "precision": "float32", "stock": True
    },
    "torch_float32": {"contender": "torch_training", "precision": "float32"},
    "torch_bfloat16": {"contender": "torch_training", "precision": "bfloat16"},
}  # fmt: skip
LABELS = {
    "sgd": "keras_resnet, SGD (recipe fast-0.2)",
    "muon": "keras_resnet, Muon (recipe fast)",
    "sgd_float32": "keras_resnet, SGD",
    "stock_float32": "keras_resnet, SGD, with Keras's BatchNormalization",
    "torch_float32": "PyTorch eager, SGD",
    "torch_bfloat16": "PyTorch channels-last autocast, SGD",
}
RATIOS = (
    ("muon", "sgd"),
    ("sgd", "torch_float32"),
    ("sgd", "torch_bfloat16"),
    ("sgd_float32", "torch_float32"),
    ("sgd_float32", "stock_float32"),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = timing.argument_parser(__doc__, rounds=7, seconds=1.5)
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 56], help="(default: 20 56)")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    arguments = timing.parse(parser, argv)
    data = timing.find_data(arguments)
    result = timing.facts(arguments, data) | {"batch_size": BATCH_SIZE, "nets": {}}
    with ExitStack() as stack:
        dtypes = ("bfloat16", "float32")
        peaks = timing.start(
            stack, {f"matmul_{t}": {"contender": "matmul", "dtype": t} for t in dtypes}
        )
        for depth in [8] if arguments.quick else arguments.depths:
            with ExitStack() as contest:
                common = {**data, "depth": depth, "batch_size": BATCH_SIZE}
                specs = {name: {**CONTENDERS[name], **common} for name in arguments.only}
                for spec in specs.values():
                    if spec["contender"] == "torch_training":
                        spec["python"] = arguments.torch_python
                workers = timing.start(contest, specs)
                for worker in workers.values():
                    result["versions"] |= worker.facts["versions"]
                contenders = workers | peaks
                rates, others = timing.interleave(contenders, arguments.rounds, arguments.seconds)
                result["nets"][str(depth)] = net_result(depth, contenders, rates, others)
    timing.write(result, arguments.output / "training.json")
    print(text(result))
    return 0


def net_result(
    depth: int, workers: dict[str, Worker], rates: dict[str, list[float]], others: float
) -> dict[str, Any]:
    """What is recorded of the contest between the contenders of one depth."""
    flops = BATCH_SIZE * training_flops(depth)
    contenders = {}
    for name, worker in workers.items():
        if name.startswith("matmul"):
            continue
        precision = "bfloat16" if "bfloat16" in worker.facts["precision"] else "float32"
        peak = f"matmul_{precision}"
        contenders[name] = {
            "precision": precision,
            "images_per_second": timing.summary([BATCH_SIZE * rate for rate in rates[name]]),
            "share_of_peak": timing.ratio(
                [flops * rate for rate in rates[name]],
                [workers[peak].facts["flops"] * rate for rate in rates[peak]],
            ),
            "peak_memory_mib": worker.peak_memory(),
            "seconds_to_first_update": worker.facts["seconds_to_first_update"],
        }
    ratios = {
        f"{one}_to_{other}": timing.ratio(rates[one], rates[other])
        for one, other in RATIOS
        if one in rates and other in rates
    }
    return {"contenders": contenders, "ratios": ratios, "cpu_of_others_percent": others}


def training_flops(depth: int) -> int:
    """Floating point operations of training on one 32x32 image, by convolutions and the dense layer.

    Two per multiply-add; the gradients of the activations and of the weights cost as much as the forward
    pass each.
    """
    n = (depth - 2) // 6
    stem, head, full = 32 * 32 * 27 * 16, 64 * 10, 32 * 32 * 9 * 16 * 16
    # A stage halves the side and doubles the filters; so its first convolution costs half of the others.
    multiply_adds = stem + 2 * n * full + 2 * (full // 2 + (2 * n - 1) * full) + head
    return 3 * 2 * multiply_adds


def text(result: dict[str, Any]) -> str:
    """The result as tables in Markdown."""
    nets = result["nets"]
    others = max(net["cpu_of_others_percent"] for net in nets.values())
    parts = [timing.describe(result, others)]
    for depth, net in nets.items():
        header = [
            f"training ResNet-{depth}, batch {result['batch_size']}", "precision", "images/s",
            "of the matmul peak", "first update, s", "memory, MiB",
        ]  # fmt: skip
        rows = [
            [
                LABELS[name],
                row["precision"],
                timing.text_of(row["images_per_second"], 0),
                f"{row['share_of_peak']['median']:.0%}",
                f"{row['seconds_to_first_update']:.0f}",
                f"{row['peak_memory_mib']:,}",
            ]
            for name, row in net["contenders"].items()
        ]
        parts.append(timing.table(header, rows))
    header = ["times as many updates per second", *(f"ResNet-{depth}" for depth in nets)]
    named = [key for one, other in RATIOS if (key := f"{one}_to_{other}")]
    rows = [
        [name.replace("_to_", " against "), *(timing.text_of(n["ratios"][name]) for n in nets.values())]
        for name in named
        if all(name in net["ratios"] for net in nets.values())
    ]  # fmt: skip
    return "\n".join([*parts, timing.table(header, rows)])


if __name__ == "__main__":
    sys.exit(main())
