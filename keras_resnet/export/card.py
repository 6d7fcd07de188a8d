"""MODEL_CARD.md: what a net is, how it was trained, its errors, and the code to call each file.

Its front matter is Hugging Face's model-index. Each snippet runs without this package; tests run them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keras_resnet.export.formats import FILES, INT8_FILE, KERAS_FILE, LITERT, ONNX, SAVED_MODEL, WEB

# Name, and identifier on the Hugging Face hub.
DATASETS = {
    "cifar10": ("CIFAR-10", "uoft-cs/cifar10"),
    "cifar100": ("CIFAR-100", "uoft-cs/cifar100"),
}
_TAGS = {FILES[ONNX]: "onnx", FILES[SAVED_MODEL]: "tf-saved-model", FILES[LITERT]: "tflite"}
_ERRORS = {"keras": "Keras float32", "onnx": "ONNX float32", "int8": "ONNX int8"}
_READ = """\
import numpy as np
from PIL import Image

labels = open("labels.txt").read().splitlines()
image = Image.open("image.png").convert("RGB").resize(({width}, {height}))
images = np.asarray(image, np.uint8)[None]  # a batch of one; values 0..255 as they are

"""
_PRINT = """\
print(labels[class_id[0]], probabilities[0, class_id[0]])
"""
_KERAS = """\
net = keras.models.load_model("{file}")
probabilities = net.predict(images, verbose=0)
class_id = probabilities.argmax(axis=1)
"""
_ONNX = """\
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
probabilities, class_id = session.run(["probabilities", "class_id"], {{"image": images}})
"""
_SAVED_MODEL = """\
model = tensorflow.saved_model.load("{file}")
outputs = model.signatures["serving_default"](image=tensorflow.constant(images))
probabilities, class_id = outputs["probabilities"].numpy(), outputs["class_id"].numpy()
"""
_LITERT_IMPORT = """\
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    import tensorflow

    Interpreter = tensorflow.lite.Interpreter
"""
_LITERT = """\
interpreter = Interpreter("{file}")
outputs = interpreter.get_signature_runner("serving_default")(image=images)
probabilities, class_id = outputs["probabilities"], outputs["class_id"]
"""
_PAGE = """\
## In a browser

`web/` is a page that classifies pictures in the browser. Any static server serves it as it is:

    python -m http.server --bind 127.0.0.1 --directory web

"""
_OTHER_PROGRAMS = """\
## Other programs

- OpenVINO runs the ONNX files too, large batches faster than ONNX Runtime. On CPUs with bfloat16
  instructions it computes in bfloat16 unless the configuration of `compile_model` has
  `{"INFERENCE_PRECISION_HINT": "f32"}`, which gives the probabilities above.
- OpenCV's `dnn`: give the uint8 array `[N, height, width, 3]` itself to `setInput`, in RGB order.
  `blobFromImages` would make floats in another order of axes.
"""
# File -> (heading, what it needs, its import, how to call it).
_CALLS = {
    KERAS_FILE: ("Keras", "keras with any of its backends", "import keras\n", _KERAS),
    FILES[SAVED_MODEL]: ("SavedModel", "tensorflow", "import tensorflow\n", _SAVED_MODEL),
    FILES[ONNX]: ("ONNX", "onnxruntime", "import onnxruntime\n", _ONNX),
    INT8_FILE: ("ONNX, int8", "onnxruntime", "import onnxruntime\n", _ONNX),
    FILES[LITERT]: ("LiteRT", "ai-edge-litert (or tensorflow)", _LITERT_IMPORT, _LITERT),
}


def render_card(facts: Mapping[str, Any]) -> str:
    """The card of an export.

    Args:
        facts: the content of export.json.
    """
    sections = (front_matter, _introduction, training, _errors, _usage)
    return "\n".join(section(facts) for section in sections)


def front_matter(facts: Mapping[str, Any]) -> str:
    """What the Hugging Face hub reads: data set, tags, metrics."""
    # JSON is YAML: quoting and lists need no YAML library.
    name, identifier = DATASETS.get(facts["dataset"], (facts["dataset"], facts["dataset"]))
    tags = ["image-classification", "keras", *(["resnet", "cifar"] if facts.get("model") else [])]
    card: dict[str, Any] = {
        **({"license": "mit"} if facts["training"] else {}),  # unknown for weights from elsewhere
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": tags + [tag for file, tag in _TAGS.items() if file in facts["files"]],
    }
    if facts["dataset"] in DATASETS:
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


def _introduction(facts: Mapping[str, Any]) -> str:
    height, width, _ = facts["input_shape"]
    classes, commit = facts["num_classes"], facts["git_commit"] or "unknown"
    paper = (
        ', built as in He et al. 2015, "Deep Residual Learning for Image\n'
        'Recognition" (arXiv:1512.03385, section 4.2)'
    )
    return f"""# {facts["name"]}

{facts["description"].capitalize()}: {facts["parameters"]:,} parameters, {classes} classes{
        paper if facts["model"] else ""
    }.
Made with keras_resnet {facts["versions"]["keras_resnet"]}, commit {commit}.

- Input: `image`, uint8 `[N, {height}, {width}, 3]`, RGB, 0..255. Normalization is inside.
- Outputs: `probabilities`, float32 `[N, {classes}]`; `class_id`, int64 `[N]`.
- Classes: `labels.txt`, one per line, in the order of `class_id`.

It knows {classes} classes and gives each image one of them, whatever the image shows.
"""


def training(facts: Mapping[str, Any]) -> str:
    """The section on how the net was trained: command, settings, time, versions."""
    run = facts["training"]
    if not run:
        return (
            "## Training\n\nNot known: the net was exported from a file without its run folder.\n"
        )
    config, results = run["config"], run["results"]
    settings = config.get("settings") or {}
    lines = [f"    {config.get('command', 'python train.py')}", ""]
    for key in (
        "dataset", "recipe", "steps", "batch_size", "learning_rate", "warmup_steps", "weight_decay",
        "momentum", "nesterov", "schedule", "val_size", "seed",
    ):  # fmt: skip
        if key in settings:
            lines.append(f"- {key}: {settings[key]}")
    lines.append(f"- precision: {config.get('precision', '?')} (saved as float32)")
    lines += [f"- device: {config['device'].get('name')}"] if config.get("device") else []
    if results.get("seconds"):
        lines.append(f"- time: {results['seconds'] / 3600:.2f} hours")
    lines.append(f"- versions: {json.dumps(config.get('versions', {}))}")
    return "\n".join(["## Training", "", *lines, ""])


def _errors(facts: Mapping[str, Any]) -> str:
    lines = ["## Errors", ""]
    if facts["test_error"]:
        lines += [f"| test error on {facts['dataset']} | % |", "|---|---|"]
        lines += [f"| {_ERRORS[key]} | {error:.2f} |" for key, error in facts["test_error"].items()]
        chosen = "One run. The test set was not used to choose anything."
        unknown = "Measured when the net was exported. How the net was chosen is not known."
        lines += ["", chosen if facts["training"] else unknown, ""]
    else:
        lines += ["The test error was not measured.", ""]
    check = facts["verification"]
    lines += [
        f"Each file was compared with Keras on {check['count']} {check['images']} images "
        f"(batches of {', '.join(map(str, check['batches']))}):",
        "",
        "| file | largest difference of a probability | same top-1 class |",
        "|---|---|---|",
    ]
    for row in check["rows"]:
        same = f"{row['agreement']}/{check['count']}"
        lines.append(f"| {row['file']} | {row['difference']:.1e} | {same} |")
    return "\n".join([*lines, ""])


def _usage(facts: Mapping[str, Any]) -> str:
    height, width, _ = facts["input_shape"]
    read = _READ.format(width=width, height=height)
    lines = ["## Use", "", "Run these in this folder, with an `image.png` of yours.", ""]
    for row in facts["verification"]["rows"]:
        heading, needs, imports, call = _CALLS[row["file"]]
        code = imports + read + call.format(file=row["file"]) + _PRINT
        lines += [f"### {heading}", "", f"Needs {needs}, numpy and pillow.", ""]
        lines += ["```python", f"{code}```", ""]
    page = [_PAGE] if FILES[WEB] in facts["files"] else []
    return "\n".join([*lines, *page, _OTHER_PROGRAMS])
