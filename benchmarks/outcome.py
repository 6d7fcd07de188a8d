"""What is made of the numbers of `run.py`: the table, the checks of what must hold, the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LABELS = {
    "ours_auto": "Keras, train.py's loop",
    "bare": "Keras, its compiled step alone",
    "ours_float32": "Keras, train.py's loop",
    "stock_float32": "Keras, stock BatchNormalization",
    "torch_bfloat16": "PyTorch channels-last autocast",
    "torch_float32": "PyTorch eager",
    "infer_keras": "Keras predict_on_batch",
    "infer_saved_model": "SavedModel",
    "onnx_float32": "ONNX Runtime float32",
    "onnx_int8": "ONNX Runtime int8",
    "torch_inference": "PyTorch eager float32",
}
ORDER = {name: k for k, name in enumerate(LABELS)}
NOISY = 5.0  # percent of the CPU time gone to other processes: the run should be repeated


def label(name: str, contender: dict[str, Any]) -> str:
    """What a contender is called in table and picture."""
    precision = contender.get("precision")
    return f"{LABELS[name]}, {precision}" if precision else LABELS[name]


def checks(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The demands on speed, each with what was measured: median of the rounds, and their spread.

    `holds` is None where other processes took more than `NOISY` percent of the CPU time: PyTorch,
    whose threads wait for each other, can lose nine tenths of its speed then.
    """
    found: list[dict[str, Any]] = []
    noisy = others(result) > NOISY

    def add(what: str, measured: dict[str, Any] | float, least: float, most: bool = False) -> None:
        spread = measured if isinstance(measured, dict) else {"median": measured}
        value = spread["median"]
        found.append(
            {
                "what": what,
                "demand": f"at {'most' if most else 'least'} {least:g}",
                **{k: spread[k] for k in ("median", "min", "max") if k in spread},
                "holds": None if noisy else value <= least if most else value >= least,
            }
        )

    for depth, training in result["training"].items():
        ours = training["contenders"]["ours_auto"]
        # The demands are made of machines that multiply bfloat16 natively.
        if ours["precision"] == "bfloat16":
            net = f"ResNet-{depth}"
            if depth in ("20", "56"):
                ratios = training["ratios"]
                add(f"{net}: times PyTorch float32", ratios["torch_float32"], 2.3)
                add(f"{net}: times PyTorch bfloat16", ratios["torch_bfloat16"], 1.0)
            if depth == "20":
                add(f"{net}: of the bfloat16 matmul peak", ours["of_peak"], 0.58)
        add(
            f"ResNet-{depth}: float32, times stock Keras float32",
            training["ours_float32_to_stock"],
            1.15,
        )
        if "bare" in training["ratios"]:
            add(f"ResNet-{depth}: model.fit to its bare step", training["ratios"]["bare"], 0.95)
        add(
            f"ResNet-{depth}: a checkpoint, % of the time of 500 updates",
            training["checkpoint"]["percent_of_500_updates"],
            2.0,
            most=True,
        )
    add("seconds from start to first update", result["first_update_seconds"], 20.0, most=True)
    return found


def others(result: dict[str, Any]) -> float:
    """Largest percentage of the CPU time that went to other processes in a part of the run."""
    sections = [*result["training"].values(), *result["inference"].values()]
    return max(section["cpu_of_others_percent"] for section in sections)


def _spread(ratio: dict[str, Any]) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}..{ratio['max']:.2f})"


def table(result: dict[str, Any]) -> str:
    """The whole result as text; spreads are those of the rounds."""
    machine, settings = result["machine"], result["settings"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores; {result['dataset']}; medians (min..max) of "
        f"{settings['rounds']} interleaved rounds"
    ]
    for depth, training in result["training"].items():
        peak = training["peak_gflops"]
        lines += [
            "",
            f"Training ResNet-{depth}, batch {settings['training_batch']}; matmul peak: bfloat16 "
            f"{peak['bfloat16']['median']:.0f}, float32 {peak['float32']['median']:.0f} GFLOP/s",
            f"  {'':46}{'images/s':>9}  {'ours is x times':>19}  {'of peak':>8}  {'peak MiB':>8}",
        ]
        for name in sorted(training["contenders"], key=ORDER.__getitem__):
            row = training["contenders"][name]
            times = _spread(training["ratios"][name]) if name in training["ratios"] else ""
            lines.append(
                f"  {label(name, row):46}{row['images_per_second']['median']:9.0f}  {times:>19}  "
                f"{row['of_peak']['median']:8.0%}  {row['peak_memory_mib']:8,}"
            )
        saved = training["checkpoint"]
        lines.append(
            f"  a checkpoint: {1000 * saved['seconds']:.0f} ms, {saved['bytes'] / 2**20:.1f} MiB, "
            f"{saved['percent_of_500_updates']:.2f} % of 500 updates"
        )
    for depth, inference in result["inference"].items():
        lines += [
            "",
            f"Inference ResNet-{depth}, batch {settings['inference_batch']}",
            f"  {'':46}{'images/s':>9}  {'times PyTorch':>19}  {'':>8}  {'peak MiB':>8}",
        ]
        for name in sorted(inference["contenders"], key=ORDER.__getitem__):
            row = inference["contenders"][name]
            lines.append(
                f"  {label(name, row):46}{row['images_per_second']['median']:9.0f}  "
                f"{_spread(row['to_torch']):>19}  {'':>8}  {row['peak_memory_mib']:8,}"
            )
    lines += ["", "Must hold:"]
    for check in result["checks"]:
        spread = f" ({check['min']:.2f}..{check['max']:.2f})" if "min" in check else ""
        verdict = {None: "not judged", True: "holds", False: "DOES NOT HOLD"}[check["holds"]]
        lines.append(
            f"  {check['what']}: {check['median']:.2f}{spread}, {check['demand']}: {verdict}"
        )
    if others(result) > NOISY:
        lines.append(
            f"warning: up to {others(result):.0f} % of the CPU time went to other processes: the "
            "numbers mean nothing, measure again"
        )
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Images per second of all contenders, a panel for each depth; whiskers are min and max."""
    from matplotlib.figure import Figure

    rows = [("Training", result["training"]), ("Inference", result["inference"])]
    columns = max(len(panels) for _, panels in rows)
    figure = Figure(figsize=(2.6 + 3.1 * columns, 6.4), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for line, (title, panels) in zip(axes, rows, strict=True):
        batch = result["settings"][f"{title.lower()}_batch"]
        # The same contenders in each panel of a row, so that one set of names serves all.
        names = sorted({n for p in panels.values() for n in p["contenders"]}, key=ORDER.__getitem__)
        for k, axis in enumerate(line):
            if k >= len(panels):
                axis.set_visible(False)
                continue
            depth, panel = list(panels.items())[k]
            _bars(axis, names, panel["contenders"])
            axis.set_title(f"{title}, ResNet-{depth}, batch {batch}", fontsize=10)
            axis.set_xlabel("images/s")
            if k:
                axis.set_yticklabels([])
    machine = result["machine"]
    figure.suptitle(
        f"{machine['cpu']}, {machine['cores']} cores; Keras {result['versions']['keras']}, "
        f"TensorFlow {result['versions']['tensorflow']}, PyTorch {result['versions']['torch']}",
        fontsize=10,
    )
    figure.savefig(path, dpi=150)


def _bars(axis: Any, names: list[str], contenders: dict[str, Any]) -> None:
    longest = max(c["images_per_second"]["max"] for c in contenders.values())
    for y, name in enumerate(names):
        if name not in contenders:
            continue
        rate = contenders[name]["images_per_second"]
        ours = name.startswith(("ours", "bare", "infer", "onnx"))
        axis.barh(y, rate["median"], color="#1f77b4" if ours else "#b8b8b8", height=0.7)
        axis.plot([rate["min"], rate["max"]], [y, y], color="black", linewidth=1.2)
        axis.text(rate["max"] + 0.02 * longest, y, f"{rate['median']:.0f}", va="center", fontsize=8)
    known = {name: contenders.get(name) for name in names}
    axis.set_yticks(range(len(names)), [label(n, c or {}) for n, c in known.items()], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, longest * 1.2)
    axis.spines[["top", "right"]].set_visible(False)
