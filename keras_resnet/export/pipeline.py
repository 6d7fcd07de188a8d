"""From a trained net to an export folder that is proven to compute the same function.

    <run>/export/
        saved_model/  model.onnx  model.int8.onnx  model.tflite    what was asked for
        web/                       the page, with its own copy of model.onnx
        labels.txt                 class names in label order
        MODEL_CARD.md, README.md   the same text; Hugging Face reads README
        export.json                the verification, and all facts

The folder is built beside its final place, verified there, and moved as one: a killed export leaves
the old folder or the new one.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.export import (
    card,
    choices,
    formats,
    litert,
    onnx_file,
    quantize,
    verify,
    web_page,
)
from keras_resnet.export.signature import serving_model
from keras_resnet.export.source import Source, open_source
from keras_resnet.inference.open import load_keras, model_file
from keras_resnet.nets.describe import describe
from keras_resnet.nets.stock import stock
from keras_resnet.runs import files, provenance, staged
from keras_resnet.runs.folder import MAX_JSON_BYTES
from keras_resnet.runs.publishing import without_folders

MAX_INT8_COST = 0.5  # percentage points of test error above which a warning is printed
KERAS_FILE = "model.keras"
_UNPACKED = ("config.json", "metadata.json", "model.weights.h5")
_WRITTEN = frozenset(
    {
        *formats.FILES.values(),
        formats.QUANTIZED,
        choices.WEB,
        "labels.txt",
        "MODEL_CARD.md",
        "README.md",
        "export.json",
        KERAS_FILE,
        *_UNPACKED,
    }
)


def export(
    path: Path | str,
    output: Path | str | None = None,
    kinds: Sequence[str] = choices.DEFAULT_FORMATS,
    quantize: bool = False,
    opset: int = choices.OPSET,
    dataset: str | None = None,
    data_dir: str | None = None,
    runtime: Path | str | None = None,
) -> dict[str, Any]:
    """Export a net, verify every file of it, and only then put the folder in its place.

    Args:
        path: a run folder or a `.keras` file of ours.
        output: the folder to write; default `<run>/export`, for a file `<stem>-export` beside it.
            An earlier export there is replaced as one; a line names those of its formats that are
            gone.
        kinds: of `"saved_model"`, `"onnx"`, `"litert"`, `"web"`. The page shows the ONNX file, which
            is therefore written too.
        quantize: also write `model.int8.onnx`.
        opset: of ONNX, 13 to 18.
        dataset: name of the data set the net was trained on; default what the run or the net's
            normalization says.
        data_dir: folder of tensorflow_datasets.
        runtime: for `"web"`: the npm package onnxruntime-web or its `dist`, copied beside the page;
            None lets the page load it from a CDN.

    Returns:
        The content of export.json.

    Raises:
        UserError: for what the user can mend, and (exit code 4) where a float format differs from
            Keras by more than `TOLERANCE` in a probability or at all in a top-1 class.
    """
    start = time.perf_counter()
    _check(kinds, quantize, opset)
    kinds = [*kinds, *([choices.ONNX] if choices.WEB in kinds else [])]
    copied = _read_runtime(kinds, runtime)
    path = Path(path)
    file = model_file(path)
    final = output_folder(path, output)
    net = stock(load_keras(file))
    with staged.staged(final, _WRITTEN, marker="export.json") as folder:
        _check_additions(final)
        before = _formats_in(final)
        source = open_source(net, path, file, dataset, data_dir, needs_data=quantize)
        facts = _facts(source, file, opset)
        console.print_line(f"exporting {facts['description']} from {file}")
        serving = serving_model(source.net)
        for kind in (kind for kind in formats.FILES if kind in kinds):
            formats.write(kind, serving, folder / formats.FILES[kind], opset, facts)
        if quantize:
            _quantize(source, folder, facts)
        facts["verification"] = verify.compare(source, folder)
        verify.print_table(facts["verification"])
        verify.judge(facts["verification"], final)
        if choices.WEB in kinds:
            model = folder / formats.FILES[choices.ONNX]
            web_page.write(folder / choices.WEB, model, facts, source.class_names, copied)
        _write_keras(net, folder)
        facts["files"] = {
            item.name: sum(f.stat().st_size for f in [item, *item.rglob("*")] if f.is_file())
            for item in sorted(folder.iterdir())
        }
        facts["seconds"] = round(time.perf_counter() - start, 1)
        text = card.text(facts)
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in source.class_names))
        for name in ("MODEL_CARD.md", "README.md"):
            (folder / name).write_text(text)
        facts["sha256"] = {
            str(item.relative_to(folder)): hashlib.sha256(item.read_bytes()).hexdigest()
            for item in sorted(folder.rglob("*"))
            if item.is_file()
        }
        (folder / "export.json").write_text(json.dumps(facts, indent=2) + "\n")
    sizes = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in facts["files"].items())
    if gone := [name for name in before if name not in facts["files"]]:
        console.print_line(
            f"note: the export that was in {final} was replaced as one: {', '.join(gone)} "
            f"{'is' if len(gone) == 1 else 'are'} gone; ask for all formats in one command to have them "
            "together"
        )
    console.print_line(f"wrote {final}: {sizes}; {time.perf_counter() - start:.0f} s")
    return facts


def _check(kinds: Sequence[str], quantize: bool, opset: int) -> None:
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            "exporting needs Keras's tensorflow backend. "
            f"Received: {keras.backend.backend()}; set KERAS_BACKEND=tensorflow"
        )
    unknown = [kind for kind in kinds if kind not in choices.FORMATS]
    if unknown or not kinds:
        raise UserError(f"`formats` must be of {', '.join(choices.FORMATS)}. Received: {unknown}")
    if opset not in choices.OPSETS:
        raise UserError(
            f"`opset` must be {choices.OPSETS[0]} to {choices.OPSETS[-1]}. Received: {opset}"
        )
    if quantize and choices.ONNX not in kinds and choices.WEB not in kinds:
        raise UserError("`quantize` makes int8 from the ONNX file: add onnx to `formats`")
    if choices.LITERT in kinds:
        litert.check_litert()


def _write_keras(net: keras.Model, folder: Path) -> None:
    """model.keras, and the same unpacked: `keras.models.load_model` opens the folder, also as hf://."""
    net.save(folder / KERAS_FILE)
    with zipfile.ZipFile(folder / KERAS_FILE) as archive:
        for name in _UNPACKED:
            (folder / name).write_bytes(archive.read(name))


def _read_runtime(kinds: Sequence[str], runtime: Path | str | None) -> dict[str, bytes] | None:
    if runtime is None:
        return None
    if choices.WEB not in kinds:
        raise UserError("`runtime` is for the page: add web to `formats`")
    return web_page.read_runtime(Path(runtime))


def output_folder(path: Path | str, output: Path | str | None) -> Path:
    """Where an export goes: `output`, else `<run>/export`, or `<stem>-export` beside a file."""
    if output:
        return Path(output)
    path = Path(path)
    return path / "export" if path.is_dir() else path.with_name(f"{path.stem}-export")


def _check_additions(final: Path) -> None:
    """Refuse to replace an export that somebody put files into: a page's CNAME, its .git."""
    try:
        data = files.read_bytes(final / "export.json", MAX_JSON_BYTES)
        written = set(json.loads(data or b"{}")["sha256"]) | {"export.json"}
    except (UserError, ValueError, KeyError, TypeError, RecursionError):
        return  # of a version that listed none, or damaged
    there = {str(item.relative_to(final)) for item in final.rglob("*") if not item.is_dir()}
    if added := sorted(there - written):
        raise staged.not_ours(final, added)


def _formats_in(folder: Path) -> list[str]:
    """The formats of an export that lies in a folder already, by their files' names."""
    names = (*formats.FILES.values(), formats.QUANTIZED, choices.WEB)
    return [name for name in names if files.exists(folder / name)]


def _facts(source: Source, file: Path, opset: int) -> dict[str, Any]:
    """What is known of the net, in the form of export.json."""
    config = source.config
    results: Mapping[str, Any] = source.results or {}
    facts = describe(source.net)
    trained = f", trained on {source.dataset}" if source.dataset else ""
    shortcut = f", shortcut {facts['shortcut']}" if facts["shortcut"] else ""
    packages = ("onnx", "tf2onnx", "onnxruntime")
    # Of the data set it was trained on, which need not be the one named now.
    same = config is not None and config["settings"].get("dataset") == source.dataset
    error = results.get("test_error") if same else None
    return {
        "name": source.net.name,
        "description": f"{facts['model']} of depth {facts['depth']}{shortcut}{trained}",
        **facts,
        "parameters": int(sum(np.prod(w.shape) for w in source.net.trainable_variables)),
        "dataset": source.dataset,
        "class_names": list(source.class_names),
        "source": file.name,
        "opset": opset,
        "test_error": {} if error is None else {"keras": error},
        "training": {"config": without_folders(config), "results": results} if config else None,
        "versions": {
            **provenance.versions(),
            **{name: provenance.version_of(name) for name in packages},
        },
        "git_commit": results.get("git_commit") or provenance.git_commit(),
    }


def _quantize(source: Source, folder: Path, facts: dict[str, Any]) -> None:
    data = source.data
    assert data is not None
    chosen = np.random.default_rng(0).permutation(len(data.train_images))
    images = data.train_images[np.sort(chosen[: quantize.CALIBRATION_IMAGES])]
    quantize.quantize(folder / formats.FILES[choices.ONNX], folder / formats.QUANTIZED, images)
    errors = facts["test_error"]
    if (
        "keras" not in errors
    ):  # else measured at the end of training; verified to be the same function
        errors["onnx"] = onnx_file.error(folder / formats.FILES[choices.ONNX], data)
    errors["int8"] = onnx_file.error(folder / formats.QUANTIZED, data)
    onnx_file.set_metadata(folder / formats.QUANTIZED, test_error=errors["int8"])
    float32, int8 = errors.get("keras", errors.get("onnx")), errors["int8"]
    console.print_line(
        f"test error on {len(data.test_labels):,} {data.name} images: float32 {float32:.2f} %, "
        f"int8 {int8:.2f} % ({int8 - float32:+.2f})"
    )
    if int8 - float32 > MAX_INT8_COST:
        console.print_line(
            f"warning: int8 costs more than {MAX_INT8_COST} percentage points of test error"
        )
