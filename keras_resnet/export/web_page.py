"""The format `web`: a page that classifies pictures in the browser. Any static server serves its folder.

Its README.md makes the folder a static Space on Hugging Face, too.

The page can load nothing but the files that it names: its Content-Security-Policy holds the whole address
of each file of ONNX Runtime Web, and the browser compares each with its SHA-384 before using it.
"""

import base64
import hashlib
import html
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from keras_resnet.errors import UserError
from keras_resnet.export.facts import HUB_NAMES, has_our_license

FOLDER = "web"
PAGE = Path(__file__).resolve().parent / "web"  # what is copied
RUNTIME_VERSION = "1.30.0"
# Of dist/ in the npm package onnxruntime-web: the module that imports nothing else, as it contains its
# loader, and the WebAssembly that classify.js fetches for it.
MODULE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
# Their names beside the page: nginx does not know .mjs by default, and browsers then refuse the file.
_BESIDE = {MODULE: "ort.wasm.bundle.min.js", WASM: WASM}
INTEGRITY = {
    MODULE: "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
    WASM: "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
}
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{RUNTIME_VERSION}/dist/"


def integrity(data: bytes) -> str:
    """The SHA-384 of a file in the form that browsers take."""
    return "sha384-" + base64.b64encode(hashlib.sha384(data).digest()).decode()


def read_runtime(folder: Path) -> dict[str, bytes]:
    """The two files of ONNX Runtime Web that the page needs, by name, from its npm package or `dist`.

    Raises UserError where one is missing, or is not of version `RUNTIME_VERSION`.
    """
    runtime = {}
    for name, expected in INTEGRITY.items():
        places = (folder / name, folder / "dist" / name)
        data = next((place.read_bytes() for place in places if place.is_file()), b"")
        if integrity(data) != expected:
            raise UserError(
                f"`runtime` must hold the npm package onnxruntime-web {RUNTIME_VERSION} or its dist. "
                f"Received: {folder}, which {'has another' if data else 'lacks'} {name}; "
                f"npm pack onnxruntime-web@{RUNTIME_VERSION} and unpack it"
            )
        runtime[name] = data
    return runtime


def write(
    folder: Path, model: Path, facts: Mapping[str, Any], runtime: Mapping[str, bytes] | None = None
) -> None:
    """Write the folder of the page that runs an ONNX file.

    `runtime` is what `read_runtime` returned; None lets the page load ONNX Runtime Web from `CDN`.
    """
    shutil.copytree(PAGE, folder)
    for item in (folder / "examples").iterdir():
        if item.stem not in facts["class_names"]:  # the net would have no right answer
            item.unlink()
    shutil.copyfile(model, folder / model.name)
    for name, data in (runtime or {}).items():
        (folder / "onnxruntime").mkdir(exist_ok=True)
        (folder / "onnxruntime" / _BESIDE[name]).write_bytes(data)
    values = _addresses(runtime is None) | _texts(folder, model, facts)
    for name in ("index.html", "README.md"):
        text = Template((PAGE / name).read_text("utf-8")).substitute(values)
        (folder / name).write_text(text, encoding="utf-8")
    content = {"file": model.name, "integrity": integrity(model.read_bytes())}
    content |= {"size": facts["input_shape"][:2], "classes": facts["class_names"]}
    (folder / "model.json").write_text(json.dumps(content, indent=2) + "\n")


def _addresses(from_cdn: bool) -> dict[str, str]:
    """Where the page loads ONNX Runtime Web from, and what its policy allows for that."""
    module, wasm = (
        CDN + name if from_cdn else f"./onnxruntime/{_BESIDE[name]}" for name in (MODULE, WASM)
    )
    # Makes import() compare the module with its hash too, in browsers that read it from import maps.
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
    """What the page says about the net, as HTML, and its README.md as YAML."""
    (height, width, _), dataset = facts["input_shape"], facts["dataset"]
    error = facts["test_error"].get("keras", facts["test_error"].get("onnx"))
    measured = f", {error:.2f} % test error" if error is not None else ""
    paper = "Built as in He et al. 2015, Deep Residual Learning for Image Recognition. "
    kinds = {"resnet": f"ResNet-{facts['depth']}", "plain": f"Plain-{facts['depth']}"}
    title = kinds.get(facts["model"], facts["name"])
    title += f", trained on {HUB_NAMES.get(dataset, (dataset,))[0]}" if dataset else ""
    texts = {
        "title": title,
        "classes": facts["num_classes"],
        "facts": f"{facts['parameters']:,} parameters{measured}. {paper if facts['model'] else ''}"
        f"Exported by keras-resnet {facts['versions']['keras_resnet']}.",
        "runtime_version": RUNTIME_VERSION,
        "size": f"{model.stat().st_size / 2**20:.1f} MiB",
        "height": height,
        "width": width,
    }
    values = {name: html.escape(str(text)) for name, text in texts.items()}
    values["title_json"] = json.dumps(title)
    values["license"] = "\nlicense: mit" if has_our_license(facts) else ""
    buttons = "".join(
        f'<li><button type="button"><img src="examples/{html.escape(item.name)}" '
        f'alt="{html.escape(item.stem)}" draggable="false"></button></li>'
        for item in sorted((folder / "examples").iterdir())
    )
    examples = f'<ul id="examples" role="list" aria-labelledby="examples-heading">{buttons}</ul>'
    heading = '<h3 id="examples-heading">Examples</h3>\n        '
    return {**values, "examples": heading + examples if buttons else ""}
