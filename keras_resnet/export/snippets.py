"""The code that a card shows for each file, from snippets.md. It runs without this package; tests run it."""

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from keras_resnet.export import keras_file, litert, onnx_file, openvino, saved_model, torch_weights

_SECTIONS = dict(
    section.split("\n", 1)
    for section in Path(__file__).with_suffix(".md").read_text("utf-8").split("### ")[1:]
)
# File -> the heading in the card, which begins with that in snippets.md.
_HEADINGS = {
    keras_file.FILE: "Keras", saved_model.FOLDER: "SavedModel", onnx_file.FILE: "ONNX",
    litert.FILE: "LiteRT", torch_weights.FILE: "PyTorch", onnx_file.HALF_FILE: "ONNX, float16",
    onnx_file.INT8_FILE: "ONNX, int8", openvino.FOLDER: "OpenVINO", litert.INT8_FILE: "LiteRT, int8",
}  # fmt: skip
_PREPARATION = """\
import numpy as np
from PIL import Image

labels = open("labels.txt").read().splitlines()
image = Image.open("image.png").convert("RGB").resize(({width}, {height}))
images = {images}  # values 0..255 as they are"""


def render_snippet(file: str, facts: Mapping[str, Any]) -> str:
    """The section of the card on how to call a file, by its name and the content of export.json."""
    (height, width, _), form = facts["input_shape"], facts["input"]
    # These two have no signature of ours.
    outputs = {keras_file.FILE: ["probabilities"], torch_weights.FILE: ["logits"]}.get(file)
    images = f"np.asarray(image, np.{'uint8' if outputs else form['dtype']})[None]"
    if not outputs:
        outputs = list(facts["outputs"])
        images += ".transpose(0, 3, 1, 2)" if form["layout"] == "nchw" else ""
        if form["batch_size"]:
            images = f"np.repeat({images}, {form['batch_size']}, axis=0)"
    scores = next((name for name in ("probabilities", "logits") if name in outputs), None)
    result = [f"class_id = {scores}.argmax(axis=1)"] if scores and "class_id" not in outputs else []
    if scores or "class_id" in outputs:
        result.append(
            f"print(labels[class_id[0]]{f', {scores}[0, class_id[0]]' if scores else ''})"
        )
    else:
        result.append(f"print({outputs[0]}.shape)")
    heading = _HEADINGS[file]
    section = Template(_SECTIONS[heading.partition(",")[0]]).substitute(
        preparation=_PREPARATION.format(width=width, height=height, images=images),
        file=file,
        names=", ".join(outputs) if len(outputs) > 1 else f"({outputs[0]},)",
        strings=json.dumps(outputs),
        blocks=((facts["depth"] or 0) - 2) // 6,
        classes=facts["num_classes"],
        normalization=facts["normalization"],
        result="\n".join(result),
    )
    return f"### {heading}\n{section.rstrip()}\n"
