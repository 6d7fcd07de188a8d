"""How fast is a net where it is served: exported files in their runtimes, and frameworks?

    pip install torch openvino ai-edge-litert      beside requirements.txt; the latter two may be missing
    python -m benchmarks.deployed                  about 12 minutes on 2 cores
    python -m benchmarks.deployed --quick          about 2 minutes

From uint8 pixels to probabilities, at batch 1 and 256. A contender whose probabilities are not those of
ONNX Runtime in float32 ends the benchmark. Writes deployed.json and prints its tables.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import timing

FLOAT32, INT8 = {"file": "model.onnx"}, {"file": "model.int8.onnx", "rounded": True}
BASELINE = "PyTorch eager"
CONTENDERS: dict[str, dict[str, Any]] = {
    BASELINE: {"engine": "torch"},
    "PyTorch `torch.compile`": {"engine": "torch", "compiled": True},
    "Keras `predict_on_batch`": {"engine": "keras"},
    "SavedModel in TensorFlow": {"engine": "saved_model"},
    "LiteRT": {"engine": "litert"},
    "ONNX Runtime, float32": {"engine": "onnxruntime", **FLOAT32},
    "ONNX Runtime, int8": {"engine": "onnxruntime", **INT8},
    "OpenVINO, float32 file in float32": {"engine": "openvino", "precision": "float32", **FLOAT32},
    # Where the CPU has instructions for bfloat16, OpenVINO's own choice is that.
    "OpenVINO, float32 file by default": {
        "engine": "openvino", "precision": "default", **FLOAT32, "rounded": True
    },
    "OpenVINO, int8 file in float32": {"engine": "openvino", "precision": "float32", **INT8},
    "OpenVINO, int8 file by default": {"engine": "openvino", "precision": "default", **INT8},
}  # fmt: skip
BATCH_SIZES = (1, 256)


def main(argv: Sequence[str] | None = None) -> int:
    parser = timing.argument_parser(__doc__, rounds=11, seconds=1.0)
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 56], help="(default: 20 56)")
    arguments = timing.parse(parser, argv)
    data, left_out = timing.find_data(arguments), missing()
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}", flush=True)
    result = timing.facts(arguments, data) | {"left_out": left_out, "nets": {}}
    with tempfile.TemporaryDirectory() as folder:
        for depth in [8] if arguments.quick else arguments.depths:
            target = str(Path(folder) / str(depth))
            prepare = {"contender": "exported_net", "backend": "tensorflow", **data, "depth": depth}
            prepare |= {"target": target, "litert": "LiteRT" not in left_out}
            with ExitStack() as stack:
                files = timing.start(stack, {f"the export of ResNet-{depth}": prepare})
                result["versions"] |= next(iter(files.values())).facts["versions"]
            for batch_size in BATCH_SIZES:
                common = {"contender": "deployed", "backend": "tensorflow", "target": target}
                common["batch_size"] = batch_size
                specs = {n: {**common, **s} for n, s in CONTENDERS.items() if n not in left_out}
                for spec in specs.values():
                    if spec["engine"] == "torch":
                        spec["python"] = arguments.torch_python
                contest = measure(specs, arguments.rounds, arguments.seconds)
                result["versions"] |= contest.pop("versions")
                result["nets"].setdefault(str(depth), {})[str(batch_size)] = contest
    timing.write(result, arguments.output / "deployed.json")
    print(text(result))
    return 0


def missing() -> dict[str, str]:
    """Contenders that cannot run here, each with the reason."""
    reasons = {}
    for package, engine in {"openvino": "openvino", "ai_edge_litert": "litert"}.items():
        if importlib.util.find_spec(package) is None:
            names = [name for name, spec in CONTENDERS.items() if spec["engine"] == engine]
            reasons |= dict.fromkeys(names, f"{package} is not installed")
    if not shutil.which("g++") and not shutil.which("clang++"):
        reasons["PyTorch `torch.compile`"] = "it needs a C++ compiler: install g++"
    return reasons


def measure(specs: dict[str, dict[str, Any]], rounds: int, seconds: float) -> dict[str, Any]:
    """The contest at one depth and batch size."""
    with ExitStack() as stack:
        workers = timing.start(stack, specs)
        rates, others = timing.interleave(workers, rounds, seconds)
        memory = {name: worker.peak_memory() for name, worker in workers.items()}
    batch_size = next(iter(specs.values()))["batch_size"]
    versions: dict[str, str] = {}
    contenders = {}
    for name, worker in workers.items():
        versions |= worker.facts.pop("versions", {})
        contenders[name] = {
            "images_per_second": timing.summary([batch_size * rate for rate in rates[name]]),
            "to_torch_eager": timing.ratio(rates[name], rates[BASELINE]),
            "peak_memory_mib": memory[name],
            **worker.facts,
        }
    return {"contenders": contenders, "cpu_of_others_percent": others, "versions": versions}


def text(result: dict[str, Any]) -> str:
    """The result as two tables in Markdown: images per second, and times PyTorch eager."""
    contests = {
        f"ResNet-{depth}, batch {batch_size}": contest
        for depth, batches in result["nets"].items()
        for batch_size, contest in batches.items()
    }
    others = max(contest["cpu_of_others_percent"] for contest in contests.values())
    parts = [timing.describe(result, others)]
    parts += [f"Left out: {name}: {reason}.\n" for name, reason in result["left_out"].items()]
    for title, key, digits in (
        ("images/s", "images_per_second", 0),
        ("times PyTorch eager", "to_torch_eager", 2),
    ):
        rows = []
        for name in next(iter(contests.values()))["contenders"]:
            cells = [c["contenders"][name] for c in contests.values()]
            default = f" ({cells[0]['precision']})" if "by default" in name else ""
            rows.append([name + default, *(timing.text_of(cell[key], digits) for cell in cells)])
        parts.append(timing.table([title, *contests], rows))
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
