"""From a trained net to an export folder whose files are proven to compute what Keras computes.

The folder is built beside its final place, verified there and then renamed: an export that is killed
leaves the old folder or the new one.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from keras_resnet import console
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError
from keras_resnet.export import (
    keras_file,
    litert,
    onnx_file,
    openvino,
    quantize,
    saved_model,
    signature,
    torch_weights,
    web_page,
)
from keras_resnet.export.card import render_card
from keras_resnet.export.facts import collect_facts
from keras_resnet.export.options import Options
from keras_resnet.export.verify import LOADERS, top_class, verify
from keras_resnet.inference import zoo
from keras_resnet.inference.open import exported_sha256, load_keras, model_file, was_changed
from keras_resnet.nets.stock import stock
from keras_resnet.runs import files

TEXTS = ("MODEL_CARD.md", "README.md")  # the same, for the hub and for people
MAX_INT8_COST = 0.5  # percentage points of test error; more gets a warning


def export(
    path: Path | str,
    output: Path | str | None = None,
    dataset: str | None = None,
    data_dir: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Export a net, verify each of its files, and only then move the folder to its place.

    `path` is a run folder, a `.keras` file of any classifier of RGB pixels 0..255, or a trained net by name.
    An earlier export in the folder is replaced; a line names its formats that are not written again.
    `options` are the fields of `Options`; `collect_facts` explains `dataset`. Returns the content of
    export.json. Raises UserError for a mistake of the user's, and (exit code 4) for what `verify` finds.
    """
    start, wanted = time.perf_counter(), Options(**options)
    runtime = None if wanted.runtime is None else web_page.read_runtime(Path(wanted.runtime))
    file = model_file(zoo.resolve(path))
    net = signature.with_probabilities(stock(load_keras(file)), file)
    all_outputs = signature.with_all_outputs(net)
    serving = signature.serving_model(all_outputs, wanted)
    final = output_folder(path, output)
    _check_replaceable(final)
    earlier = [name for name in (*LOADERS, web_page.FOLDER) if (final / name).exists()]
    with files.atomic_folder(Path(os.path.realpath(final))) as folder:
        facts, data = collect_facts(net, file, dataset, data_dir, needs_data=wanted.quantize)
        facts["input"] = {"dtype": wanted.input, "layout": wanted.layout}
        facts["input"] |= {"batch_size": wanted.batch_size, "shape": list(serving.inputs[0].shape)}
        facts["outputs"] = {name: [x.dtype, list(x.shape)] for name, x in serving.output.items()}
        console.print_line(f"exporting {facts['description']} from {file}")
        onnx_path = folder / onnx_file.FILE

        def write(kind: str, name: str, writer: Callable[[Path], object]) -> None:
            if wanted.writes(kind):
                console.print_line(f"writing {name}")
                writer(folder / name)

        write("keras", keras_file.FILE, lambda path: keras_file.write(net, path))
        write("saved_model", saved_model.FOLDER, lambda path: saved_model.write(serving, path))
        write("litert", litert.FILE, lambda path: litert.write(serving, path))
        write("safetensors", torch_weights.FILE, lambda path: torch_weights.write(net, path))
        write("onnx", onnx_file.FILE, lambda path: onnx_file.write(serving, path, wanted, facts))
        write("openvino", openvino.FOLDER, openvino.write)
        write("half", onnx_file.HALF_FILE, lambda path: onnx_file.write_half(path, facts))
        if wanted.quantize and data is not None:
            batches = quantize.calibration_batches(data.train_images, wanted)
            write("int8", onnx_file.INT8_FILE, lambda path: quantize.quantize(path, batches))
            write("int8_litert", litert.INT8_FILE, lambda p: litert.write(serving, p, batches))
            _measure_int8(folder, data, facts, wanted)
        write("web", web_page.FOLDER, lambda path: web_page.write(path, onnx_path, facts, runtime))
        facts["verification"] = verify(all_outputs, folder, data, wanted)
        facts["files"] = {
            item.name: sum(
                file.stat().st_size for file in (item, *item.rglob("*")) if file.is_file()
            )
            for item in sorted(folder.iterdir())
        }
        labels = "".join(f"{name}\n" for name in facts["class_names"])
        (folder / "labels.txt").write_text(labels, encoding="utf-8")
        for name in TEXTS:
            (folder / name).write_text(render_card(facts), encoding="utf-8")
        facts["sha256"] = {
            str(item.relative_to(folder)): hashlib.sha256(item.read_bytes()).hexdigest()
            for item in sorted(folder.rglob("*"))
            if item.is_file()
        }
        (folder / "export.json").write_text(json.dumps(facts, indent=2) + "\n")
    if gone := [name for name in earlier if name not in facts["files"]]:
        console.print_line(
            f"note: the earlier export in {final} was replaced, and {', '.join(gone)} "
            f"{'is' if len(gone) == 1 else 'are'} gone; name all formats in one command to keep them"
        )
    sizes = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in facts["files"].items())
    console.print_line(f"wrote {final}: {sizes}; {time.perf_counter() - start:.0f} s")
    return facts


def output_folder(path: Path | str, output: Path | str | None) -> Path:
    """The folder of an export: `output`, else `<run>/export`, `<stem>-export` beside a file, or for a
    trained net by its name, `<name>-export` in the working directory.
    """
    if output is not None:
        return Path(os.path.expanduser(output))
    path = Path(path)
    return path / "export" if path.is_dir() else path.with_name(f"{path.stem}-export")


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a file, or a folder with any file that an earlier export did not write."""
    if not str(folder).isprintable():  # TensorFlow and ONNX Runtime take paths as UTF-8
        raise UserError(f"the output must have a printable name. Received: {folder}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"the output must be a folder. Received: {folder}, which is a file")
    if Path.cwd().is_relative_to(os.path.realpath(folder)):
        raise UserError(
            f"the output must be a folder of its own. Received: {folder}, the working directory or a folder "
            "around it"
        )
    exported, found = exported_sha256(folder), folder.glob("*")
    written = set() if exported is None else {*exported, "export.json"}
    if written:  # else one look is enough, also at the whole disk
        found = (item for item in folder.rglob("*") if item.is_symlink() or not item.is_dir())
    others = sorted({str(item.relative_to(folder)) for item in found} - written)[:3]
    texts = (*TEXTS, "labels.txt")
    others += [f"{name}, which was changed" for name in texts if was_changed(folder / name)]
    if others:
        raise UserError(
            f"{folder} would be replaced, but holds what this command did not write "
            f"({', '.join(others)}); name another folder with `output`"
        )


def _measure_int8(folder: Path, data: Dataset, facts: dict[str, Any], options: Options) -> None:
    """Measure the test error of the int8 files, and print it beside that of float32."""
    errors = facts["test_error"]
    for key, name, kind, float32_name in (
        ("int8", onnx_file.INT8_FILE, "onnx", onnx_file.FILE),
        ("int8_litert", litert.INT8_FILE, "litert", litert.FILE),
    ):
        if not options.writes(key):
            continue
        if not errors:  # else it was measured when the run ended
            errors[kind] = _test_error(folder / float32_name, data, options)
        float32, file = next(iter(errors.values())), folder / name
        errors[key] = error = _test_error(file, data, options)
        if kind == "onnx":
            metadata = {"test_error": error, "quantization": quantize.METHOD}
            onnx_file.save(onnx.load(file), file, facts, **metadata)
        warning = f"; warning: more than {MAX_INT8_COST}" if error - float32 > MAX_INT8_COST else ""
        console.print_line(
            f"test error on {len(data.test_labels):,} {data.name} images: float32 {float32:.2f} %, "
            f"{name} {error:.2f} % ({error - float32:+.2f} percentage points{warning})"
        )


def _test_error(file: Path, data: Dataset, options: Options) -> float:
    """In percent."""
    predict = signature.in_batches(LOADERS[file.name](file), options.batch_size or 500)
    classes = top_class(predict(options.prepare(data.test_images)))
    return round(100 * float(np.mean(classes != data.test_labels)), 4)
