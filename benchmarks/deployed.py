"""How fast is a net where it is served: exported files in their runtimes, and frameworks?

    pip install torch openvino ai-edge-litert      beside requirements.txt; the latter two may be missing
    python -m benchmarks.deployed                  about 12 minutes on 2 cores

From uint8 pixels to probabilities, at batch 1 and 256. A contender whose probabilities are not those of
ONNX Runtime in float32 ends the benchmark. Writes deployed.json and prints its tables.
"""

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing

FLOAT32, INT8 = {"file": "model.onnx"}, {"file": "model.int8.onnx", "rounded": True}
BASELINE = "PyTorch eager"
CONTENDERS: dict[str, dict[str, Any]] = {
    BASELINE: {"engine": "torch", "backend": "torch"},
    "PyTorch `torch.compile`": {"engine": "torch", "backend": "torch", "compiled": True},
    "Keras `predict_on_batch`": {"engine": "keras"},
    "LiteRT": {"engine": "litert"},
    "ONNX Runtime, float32": {"engine": "onnxruntime", **FLOAT32},
    "ONNX Runtime, int8": {"engine": "onnxruntime", **INT8},
    "OpenVINO, float32 file, float32 asked for": {"engine": "openvino", **FLOAT32},
    # Where the CPU has instructions for bfloat16, that is OpenVINO's default.
    "OpenVINO, float32 file, its default": {
        "engine": "openvino", "default": True, **FLOAT32, "rounded": True
    },
    "OpenVINO, int8 file, float32 asked for": {"engine": "openvino", **INT8},
    "OpenVINO, int8 file, its default": {"engine": "openvino", "default": True, **INT8},
}  # fmt: skip
PAIRS = [(name, BASELINE) for name in CONTENDERS if name != BASELINE]
OPTIONAL = {"openvino": "openvino", "litert": "ai_edge_litert"}  # engine -> package


def main(argv: Sequence[str] | None = None) -> None:
    parser = timing.argument_parser(__doc__, rounds=11, seconds=1.0, depths=[20, 56])
    arguments = timing.parse(parser, argv)
    missing = {e for e, package in OPTIONAL.items() if importlib.util.find_spec(package) is None}
    for engine in sorted(missing):
        print(f"left out: {engine}: {OPTIONAL[engine]} is not installed", flush=True)
    contenders = {name: spec for name, spec in CONTENDERS.items() if spec["engine"] not in missing}
    contests = {}
    with tempfile.TemporaryDirectory() as folder:
        for depth in arguments.depths:
            common = {"target": str(Path(folder) / str(depth)), "backend": "tensorflow"}
            print(f"exporting ResNet-{depth}", flush=True)
            export = {"contender": "exported_net", "depth": depth, "without": list(missing)}
            with timing.Worker({**common, **arguments.data, **export}) as worker:
                worker.wait_until_warm()
            for batch_size in (1, 256):
                specs = {
                    name: {**common, "contender": "deployed", "batch_size": batch_size, **spec}
                    for name, spec in contenders.items()
                }
                title = f"ResNet-{depth}, batch {batch_size}"
                contests[title] = timing.contest(specs, PAIRS, arguments)
    timing.report(contests, "deployed", arguments)


if __name__ == "__main__":
    main()
