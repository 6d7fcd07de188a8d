"""MODEL_CARD.md from card.md: what a net is, how it was trained, its errors, the code to call each file.

Its front matter is Hugging Face's model-index.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from keras_resnet.export import litert, onnx_file, openvino, saved_model, torch_weights, web_page
from keras_resnet.export.facts import HUB_NAMES, has_our_license
from keras_resnet.export.snippets import render_snippet
from keras_resnet.runs.resume import upgrade

_TAGS = {
    onnx_file.FILE: "onnx", saved_model.FOLDER: "tf-saved-model", litert.FILE: "tflite",
    torch_weights.FILE: "safetensors", openvino.FOLDER: "openvino",
}  # fmt: skip
_ERRORS = {
    "keras": "Keras float32", "onnx": "ONNX float32", "litert": "LiteRT float32",
    "int8": "ONNX int8", "int8_litert": "LiteRT int8",
}  # fmt: skip
_SETTINGS = (
    "dataset", "recipe", "steps", "batch_size", "learning_rate", "warmup_steps", "weight_decay",
    "momentum", "nesterov", "schedule", "val_size", "seed",
)  # fmt: skip
_CARD, _ONNX, _PAGE = re.split(
    "<!-- .* -->\n", Path(__file__).with_suffix(".md").read_text("utf-8")
)
_KERAS = "- `model.keras` takes `[N, height, width, 3]`, 0..255, whatever the others take.\n"
_TORCH = "- `model.safetensors` holds weights alone, and its input must be normalized: see Use.\n"
_USUAL = ["uint8", "nhwc", None]
_LICENSE = "\n- License: MIT, Copyright (c) 2026 The keras-resnet authors."
_PAPER = """, built as in He et al. 2015, "Deep Residual Learning for Image
Recognition" (arXiv:1512.03385, section 4.2)"""


def render_card(facts: Mapping[str, Any]) -> str:
    """The card of an export, from the content of export.json."""
    check, form = facts["verification"], facts["input"]
    outputs = [f"`{name}`, {x[0]} {_axes(x[1])}" for name, x in facts["outputs"].items()]
    return Template(_CARD).substitute(
        facts,
        front_matter=front_matter(facts),
        description=facts["description"].capitalize(),
        parameters=f"{facts['parameters']:,}",
        paper=_PAPER if facts["model"] else "",
        version=facts["versions"]["keras_resnet"],
        input=f"{form['dtype']} {_axes(form['shape'])}",
        any="" if form["batch_size"] else " `N` is any number of images.",
        outputs="; ".join(outputs),
        license=_LICENSE if has_our_license(facts) else "",
        training=training(facts),
        errors=_errors(facts),
        images=f"{check['count']} {check['images']}",
        batches=", ".join(map(str, check["batches"]))
        + ("; `model.keras` and `model.safetensors`: 1, 7, 256" if form["batch_size"] else ""),
        rows="\n".join(
            f"| {row['file']} | {row['difference']:.1e} | {row['tolerance'] or 'none'} | "
            f"{row['agreement']}/{check['count']} |"
            for row in check["rows"]
        ),
        snippets="\n".join(render_snippet(row["file"], facts) for row in check["rows"]),
        others=(_KERAS if [form["dtype"], form["layout"], form["batch_size"]] != _USUAL else "")
        + (_TORCH if torch_weights.FILE in facts["files"] else ""),
        onnx=_ONNX if onnx_file.FILE in facts["files"] else "",
        page=_PAGE if web_page.FOLDER in facts["files"] else "",
    )


def _axes(shape: Sequence[int | None]) -> str:
    return f"`[{', '.join(str(size or 'N') for size in shape)}]`"


def front_matter(facts: Mapping[str, Any]) -> str:
    """What the Hugging Face hub reads: data set, tags, metrics."""
    # JSON is YAML: quoting and lists need no YAML library.
    name, identifier = HUB_NAMES.get(facts["dataset"], (facts["dataset"], facts["dataset"]))
    tags = ["image-classification", "keras", *(["resnet", "cifar"] if facts.get("model") else [])]
    card: dict[str, Any] = {
        **({"license": "mit"} if has_our_license(facts) else {}),
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": tags + [tag for file, tag in _TAGS.items() if file in facts["files"]],
    }
    if facts["dataset"] in HUB_NAMES:
        card["datasets"] = [identifier]
    if facts["test_error"] and facts["dataset"]:
        metrics = [
            {
                "type": "accuracy",
                "value": round((100 - error) / 100, 6),
                "name": f"Accuracy, {_ERRORS[key]}",
            }
            for key, error in facts["test_error"].items()
        ]
        card["metrics"] = ["accuracy"]
        task = {"type": "image-classification", "name": "Image Classification"}
        dataset = {"type": identifier, "name": name, "split": "test"}
        results = [{"task": task, "dataset": dataset, "metrics": metrics}]
        card["model-index"] = [{"name": facts["name"], "results": results}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in card.items()]
    return "\n".join(["---", *lines, "---", ""])


def training(facts: Mapping[str, Any]) -> str:
    """The section on how the net was trained: command, settings, time, versions."""
    run = facts["training"]
    if not run:
        return (
            "## Training\n\nNot known: the net was exported from a file without its run folder.\n"
        )
    config, results = run["config"], run["results"]
    settings = upgrade(config.get("settings") or {})  # what 0.2 called `fast` is `fast-0.2` now
    lines = [f"    {config.get('command', 'python train.py')}", ""]
    lines += [f"- {key}: {settings[key]}" for key in _SETTINGS if settings.get(key) is not None]
    lines.append(f"- precision: {config.get('precision', '?')} (saved as float32)")
    lines += [f"- device: {config['device'].get('name')}"] if config.get("device") else []
    if results.get("seconds"):
        lines.append(f"- time: {results['seconds'] / 3600:.2f} hours")
    lines.append(f"- commit: {results.get('git_commit') or config.get('git_commit') or '?'}")
    lines.append(f"- versions: {json.dumps(config.get('versions', {}))}")
    return "\n".join(["## Training", "", *lines, ""])


def _errors(facts: Mapping[str, Any]) -> str:
    if not facts["test_error"]:
        return "The test error was not measured."
    chosen = "One run. The test set was not used to choose anything."
    unknown = "Measured when the net was exported. How the net was chosen is not known."
    rows = [f"| {_ERRORS[key]} | {error:.2f} |" for key, error in facts["test_error"].items()]
    header = [f"| test error on {facts['dataset']} | % |", "|---|---|"]
    return "\n".join([*header, *rows, "", chosen if facts["training"] else unknown])
