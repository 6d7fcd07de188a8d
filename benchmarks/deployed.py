"""Measure a net as it is served on this machine's CPU: exported files in their runtimes, and frameworks.

    pip install torch openvino ai-edge-litert      beside requirements.txt; torch alone must be there
    python benchmarks/deployed.py              about 11 minutes on 2 cores
    python benchmarks/deployed.py --quick      about 2 minutes: does it work? Its numbers mean little

From uint8 pixels to probabilities, at batch 1 and 256, ResNet-20 and ResNet-56. Every contender is a
process of its own; all take short turns, interleaved and repeated. One whose probabilities are not
those of ONNX Runtime in float32 ends the benchmark. The nets are not trained and the images are
drawn: speed does not depend on the values. Prints Markdown, writes deployed.json. Let nothing else run.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measure, outcome, run  # noqa: E402
from benchmarks.measure import Worker  # noqa: E402
from keras_resnet.commands import flags, terminal  # noqa: E402
from keras_resnet.errors import UserError  # noqa: E402
from keras_resnet.runs import files  # noqa: E402

# Contender of a worker without "deployed_", and what it is called.
LABELS = {
    "torch_eager": "PyTorch eager",
    "torch_compile": "PyTorch `torch.compile`",
    "keras": "Keras `predict_on_batch`",
    "litert": "LiteRT",
    "onnxruntime_float32": "ONNX Runtime, float32",
    "onnxruntime_int8": "ONNX Runtime, int8",
    "openvino_float32_f32": "OpenVINO, float32 file, float32 asked for",
    "openvino_float32_default": "OpenVINO, float32 file, its default",
    "openvino_int8_f32": "OpenVINO, int8 file, float32 asked for",
    "openvino_int8_default": "OpenVINO, int8 file, its default",
}
BASELINE = "torch_eager"
BATCHES = (1, 256)


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--depths", type=int, nargs="+", default=[20, 56], help="(default: 20 56)")
    add("--rounds", type=int, default=11, help="turns of each contender (default: %(default)s)")
    add("--seconds", type=float, default=1.0, help="of a turn, at least (default: %(default)s)")
    add("--output", type=Path, help="folder of deployed.json (default: benchmarks/)")
    add("--quick", action="store_true", help="depth 20, 2 rounds; the file in a temporary folder")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.depths, arguments.rounds, arguments.seconds = [20], 2, 0.3
        arguments.output = arguments.output or Path(tempfile.mkdtemp(prefix="benchmarks-"))
    arguments.output = arguments.output or measure.ROOT / "benchmarks"
    run.check(arguments, {"torch": "requirements-torch.txt", "tf2onnx": "requirements.txt"})
    try:
        result = _measure(arguments)
    except measure.WorkerFailed as error:
        raise UserError(str(error), exit_code=1) from None
    files.make_folder(arguments.output)
    files.write_json(arguments.output / "deployed.json", result)
    print("\n" + table(result))
    print(f"wrote deployed.json to {arguments.output}")
    return 0


def left_out(litert: bool) -> dict[str, str]:
    """Contenders that cannot run here, each with the reason; `litert` is what `prepare` says of it."""
    found = {}
    if importlib.util.find_spec("openvino") is None:
        openvino = [name for name in LABELS if name.startswith("openvino")]
        found |= dict.fromkeys(openvino, "openvino is missing: pip install openvino")
    if not litert:
        found["litert"] = "no interpreter: pip install ai-edge-litert"
    if not any(shutil.which(compiler) for compiler in ("g++", "clang++")):
        found["torch_compile"] = "torch.compile needs a C++ compiler: install g++"
    return found


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        _say("writing the nets")
        spec = {"folder": folder, "dataset": "synthetic", "data_dir": None, "deployed": True}
        with Worker({"contender": "prepare", "depths": arguments.depths, **spec}) as worker:
            prepared = worker.ready()
        missing = left_out(prepared["litert"])
        for name, reason in missing.items():
            print(f"left out: {LABELS[name]}: {reason}", flush=True)
        result = run.facts_of_run(prepared) | {
            "settings": {"rounds": arguments.rounds, "seconds": arguments.seconds},
            "left_out": missing,
            "nets": {},
        }
        for depth in arguments.depths:
            result["nets"][str(depth)] = {}
            for batch in BATCHES:
                _say(f"ResNet-{depth}, batch {batch}")
                found = _contest(depth, batch, folder, arguments, result)
                result["nets"][str(depth)][str(batch)] = found
    return result | {"seconds": round(time.perf_counter() - begun)}


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what} ...", flush=True)


def _contest(
    depth: int, batch: int, folder: str, arguments: argparse.Namespace, result: dict[str, Any]
) -> dict[str, Any]:
    spec = {"depth": depth, "batch": batch, "folder": folder}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker({"contender": f"deployed_{name}", **spec}))
            for name in LABELS
            if name not in result["left_out"]
        }
        for worker in workers.values():
            worker.facts = worker.ready()
            result["versions"] |= worker.facts.get("versions", {})
        rates, others = measure.interleave(workers, arguments.rounds, arguments.seconds)
        memory = {name: worker.peak_memory() for name, worker in workers.items()}
    images = {name: [batch * rate for rate in found] for name, found in rates.items()}
    return {
        "contenders": {
            name: {
                "images_per_second": measure.summary(images[name]),
                "to_torch_eager": measure.ratio(images[name], images[BASELINE]),
                "peak_memory_mib": memory[name],
                **{k: v for k, v in worker.facts.items() if k != "versions"},
            }
            for name, worker in workers.items()
        },
        "cpu_of_others_percent": others,
    }


def table(result: dict[str, Any]) -> str:
    """The result as two tables in Markdown: images per second, and times PyTorch eager."""
    contests = [
        (f"ResNet-{depth}, batch {batch}", found)
        for depth, batches in result["nets"].items()
        for batch, found in batches.items()
    ]
    names = [name for name in LABELS if name not in result["left_out"]]
    machine = result["machine"]
    others = max(found["cpu_of_others_percent"] for _, found in contests)
    packages = ("torch", "tensorflow", "onnxruntime", "openvino", "ai_edge_litert")
    commit, _, changes = (result["git_commit"] or "unknown").partition("+")
    known = {package: result["versions"].get(package) for package in packages}
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, "
        f"{', '.join(machine['bfloat16_flags']) or 'no bfloat16 instructions'}; "
        f"{', '.join(f'{package} {v}' for package, v in known.items() if v)}; "
        f"commit {commit[:7]}{' with changes' if changes else ''}. "
        f"Medians (min..max) of {result['settings']['rounds']} interleaved rounds; other processes "
        f"took at most {others} % of the CPU time."
    ]
    if others > outcome.NOISY:
        lines += ["", "**Measured under load: these numbers mean little, measure again.**"]
    if result["left_out"]:
        lines.append("")
    lines += [f"- Left out: {LABELS[name]}: {why}." for name, why in result["left_out"].items()]
    for title, key, digits in (
        ("images/s", "images_per_second", 0),
        ("times PyTorch eager", "to_torch_eager", 2),
    ):
        lines += ["", f"| {title} | {' | '.join(what for what, _ in contests)} |"]
        lines.append("|---" * (1 + len(contests)) + "|")
        for name in names:
            cells = [_spread(found["contenders"][name][key], digits) for _, found in contests]
            precision = contests[0][1]["contenders"][name].get("precision")
            known_as = f"{LABELS[name]} ({precision})" if "default" in name else LABELS[name]
            lines.append(f"| {known_as} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(found: dict[str, Any], digits: int) -> str:
    median, least, most = (f"{found[key]:,.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({least}..{most})"


if __name__ == "__main__":
    sys.exit(terminal.run(main))
