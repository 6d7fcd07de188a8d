"""The code that a card shows for each file. Each snippet runs without this package; tests run them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Template
from typing import Any

from keras_resnet.export import keras_file, litert, onnx_file, saved_model, torch_weights

_SNIPPET = Template("""\
### $heading

Needs $needs, numpy and pillow.

```python
$imports
import numpy as np
from PIL import Image

labels = open("labels.txt").read().splitlines()
image = Image.open("image.png").convert("RGB").resize(($width, $height))
images = $images  # values 0..255 as they are

$call
$show
```
""")
_ONNX = Template("""\
session = onnxruntime.InferenceSession("$file", providers=["CPUExecutionProvider"])
$names = session.run($strings, {"image": images})""")
_LITERT_IMPORT = """\
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    import tensorflow

    Interpreter = tensorflow.lite.Interpreter"""
_TORCH_IMPORT = """\
import torch
from resnet import BasicBlock, ResNet  # resnet.py of github.com/akamaster/pytorch_resnet_cifar10
from safetensors.torch import load_file"""
# File -> (heading, what it needs, its imports, how to call it).
_CALLS = {
    keras_file.FILE: ("Keras", "keras with any of its backends", "import keras", Template("""\
net = keras.models.load_model("model.keras")
probabilities = net.predict(images, verbose=0)""")),
    saved_model.FOLDER: ("SavedModel", "tensorflow", "import tensorflow", Template("""\
model = tensorflow.saved_model.load("saved_model")
outputs = model.signatures["serving_default"](image=tensorflow.constant(images))
$names = (outputs[name].numpy() for name in $strings)""")),
    onnx_file.FILE: ("ONNX", "onnxruntime", "import onnxruntime", _ONNX),
    litert.FILE: ("LiteRT", "ai-edge-litert (or tensorflow)", _LITERT_IMPORT, Template("""\
interpreter = Interpreter("model.tflite")
outputs = interpreter.get_signature_runner("serving_default")(image=images)
$names = (outputs[name] for name in $strings)""")),
    torch_weights.FILE: ("PyTorch", "torch, safetensors", _TORCH_IMPORT, Template("""\
net = ResNet(BasicBlock, [$blocks, $blocks, $blocks], num_classes=$classes)
net.load_state_dict(load_file("model.safetensors"))
net.eval()
mean, std = torch.tensor($normalization)
with torch.no_grad():
    logits = net(((torch.tensor(images) - mean) / std).permute(0, 3, 1, 2)).numpy()""")),
    onnx_file.HALF_FILE: ("ONNX, float16", "onnxruntime", "import onnxruntime", _ONNX),
    onnx_file.INT8_FILE: ("ONNX, int8", "onnxruntime", "import onnxruntime", _ONNX),
}  # fmt: skip


def render_snippet(file: str, facts: Mapping[str, Any]) -> str:
    """The section of the card on how to call a file.

    Args:
        file: its name.
        facts: the content of export.json.
    """
    heading, needs, imports, call = _CALLS[file]
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
    show = [f"class_id = {scores}.argmax(axis=1)"] if scores and "class_id" not in outputs else []
    if scores or "class_id" in outputs:
        show.append(f"print(labels[class_id[0]]{f', {scores}[0, class_id[0]]' if scores else ''})")
    else:
        show.append(f"print({outputs[0]}.shape)")
    code = call.substitute(
        file=file,
        names=", ".join(outputs) if len(outputs) > 1 else f"({outputs[0]},)",
        strings=json.dumps(outputs),
        blocks=((facts["depth"] or 0) - 2) // 6,
        classes=facts["num_classes"],
        normalization=facts["normalization"],
    )
    return _SNIPPET.substitute(
        heading=heading, needs=needs, imports=imports, height=height, width=width,
        images=images, call=code, show="\n".join(show),
    )  # fmt: skip
