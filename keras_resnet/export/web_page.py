"""The format `web`: a folder that any static server serves as it is, to classify pictures in a browser.

    web/
        index.html, style.css, classify.js, picture.js, icon.svg    the page
        model.onnx, model.json                                      the net, its classes
        examples/                                                   pictures to try
        onnxruntime/                                                with `runtime` only
        README.md                                                   makes it a Hugging Face static Space

The page may load nothing but what it names: its Content-Security-Policy has the whole address of each
file of ONNX Runtime Web, and the browser compares each with its SHA-384 before it uses it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from keras_resnet.errors import UserError
from keras_resnet.export.card import DATASETS
from keras_resnet.runs import files

PAGE = Path(__file__).resolve().parent / "web"  # what is copied
RUNTIME_VERSION = "1.30.0"
# Of dist/ in the npm package onnxruntime-web: the module that holds its own loader, so that it imports
# nothing by itself, and the WebAssembly that classify.js fetches for it.
MODULE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
# The names beside the page: nginx, as it comes, knows no .mjs, and browsers then refuse it.
_BESIDE = {MODULE: "ort.wasm.bundle.min.js", WASM: WASM}
INTEGRITY = {
    MODULE: "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
    WASM: "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
}
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{RUNTIME_VERSION}/dist/"
_MAX_RUNTIME_BYTES = 2**26
_KINDS = {"resnet": "ResNet", "plain": "Plain"}


def integrity(data: bytes) -> str:
    """The SHA-384 of a file in the form that browsers take."""
    return "sha384-" + base64.b64encode(hashlib.sha384(data).digest()).decode()


def read_runtime(folder: Path) -> dict[str, bytes]:
    """The two files of ONNX Runtime Web that the page needs, by name.

    Args:
        folder: the npm package onnxruntime-web, unpacked, or its `dist`.

    Raises:
        UserError: where one is missing, or is not that of version `RUNTIME_VERSION`.
    """
    found = {}
    for name, expected in INTEGRITY.items():
        for place in (folder / name, folder / "dist" / name):
            if (data := files.read_bytes(place, _MAX_RUNTIME_BYTES)) is not None:
                break
        if data is None or integrity(data) != expected:
            what = "without" if data is None else "with another"
            raise UserError(
                f"`runtime` must hold the npm package onnxruntime-web {RUNTIME_VERSION} or its dist. "
                f"Received: {folder}, {what} {name}; npm pack onnxruntime-web@{RUNTIME_VERSION} and "
                "unpack it"
            )
        found[name] = data
    return found


def write(
    folder: Path,
    model: Path,
    facts: Mapping[str, Any],
    class_names: Sequence[str],
    runtime: Mapping[str, bytes] | None = None,
) -> None:
    """Write the folder.

    Args:
        folder: to make.
        model: the ONNX file, verified.
        facts: the content of export.json.
        class_names: in the order of the probabilities.
        runtime: what `read_runtime` returned: the page then loads nothing from elsewhere. None lets it
            load ONNX Runtime Web from `CDN`.

    Raises:
        UserError: for a net that does not take RGB images.
    """
    height, width, channels = facts["input_shape"]
    if channels != 3:
        raise UserError(f"`formats` web shows nets of RGB images. Received: {channels} channels")
    shutil.copytree(PAGE, folder)
    for item in (folder / "examples").iterdir():
        if item.stem not in class_names:  # the net would have no right answer
            item.unlink()
    shutil.copyfile(model, folder / model.name)
    if runtime is not None:
        (folder / "onnxruntime").mkdir()
        for name, data in runtime.items():
            (folder / "onnxruntime" / _BESIDE[name]).write_bytes(data)
    template = Template((PAGE / "index.html").read_text())
    (folder / "index.html").write_text(
        template.substitute(_addresses(runtime is None), **_texts(folder, model, facts))
    )
    content = {
        "file": model.name,
        "integrity": integrity(model.read_bytes()),
        "size": [height, width],
        "classes": list(class_names),
    }
    (folder / "model.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "README.md").write_text(_readme(facts))


def _addresses(from_cdn: bool) -> dict[str, str]:
    """Where the page loads ONNX Runtime Web from, and what its policy allows for that."""
    module, wasm = (
        CDN + name if from_cdn else f"./onnxruntime/{_BESIDE[name]}" for name in (MODULE, WASM)
    )
    # So that import() compares the module with its hash too, where browsers read import maps that far.
    import_map = json.dumps({"integrity": {module: INTEGRITY[MODULE]}})
    return {
        "module": module,
        "module_integrity": INTEGRITY[MODULE],
        "import_map": import_map,
        "wasm": wasm,
        "wasm_integrity": INTEGRITY[WASM],
        "scripts": f" '{integrity(import_map.encode())}'" + (f" {module}" if from_cdn else ""),
        "connections": f" {wasm}" if from_cdn else "",
    }


def _texts(folder: Path, model: Path, facts: Mapping[str, Any]) -> dict[str, str]:
    """What the page says of the net, as HTML."""
    height, width, _ = facts["input_shape"]
    error = facts["test_error"].get("keras", facts["test_error"].get("onnx"))
    measured = f", {error:.2f} % test error" if error is not None else ""
    texts = {
        "title": title(facts),
        "introduction": f"It knows {facts['num_classes']} classes of small images, and gives every picture "
        "one of them.",
        "facts": f"{facts['parameters']:,} parameters{measured}. Built as in He et al. 2015, Deep Residual "
        f"Learning for Image Recognition, by keras-resnet {facts['versions']['keras_resnet']}.",
        "runtime_version": RUNTIME_VERSION,
        "size": f"{model.stat().st_size / 2**20:.1f} MiB",
        "height": str(height),
        "width": str(width),
    }
    return {name: html.escape(text) for name, text in texts.items()} | {
        "examples": _examples(folder / "examples")
    }


def _examples(folder: Path) -> str:
    """The pictures to try, as HTML; nothing where there are none."""
    items = "".join(
        f'<li><button type="button"><img src="examples/{html.escape(item.name)}" '
        f'alt="{html.escape(item.stem)}" draggable="false"></button></li>'
        for item in sorted(folder.iterdir())
    )
    if not items:
        return ""
    return (
        '<h3 id="examples-heading">Examples</h3>\n        '
        f'<ul id="examples" role="list" aria-labelledby="examples-heading">{items}</ul>'
    )


def title(facts: Mapping[str, Any]) -> str:
    """`ResNet-20, trained on CIFAR-10`."""
    dataset = facts["dataset"]
    trained = f", trained on {DATASETS.get(dataset, (dataset,))[0]}" if dataset else ""
    return f"{_KINDS[facts['model']]}-{facts['depth']}{trained}"


def _readme(facts: Mapping[str, Any]) -> str:
    known = "\nlicense: mit" * bool(facts["training"])  # of others' weights it is not known
    return f"""---
title: {json.dumps(title(facts))}
sdk: static{known}
---

A page that classifies pictures in the browser. Any static server serves this folder as it is:

    python -m http.server --bind 127.0.0.1
"""
