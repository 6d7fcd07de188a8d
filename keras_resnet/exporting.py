"""From a trained net to an export folder that is proven to compute the same function.

    <run>/export/
        saved_model/  model.onnx  model.int8.onnx  model.tflite    what was asked for
        labels.txt                 class names in label order
        MODEL_CARD.md, README.md   the same text; Hugging Face reads README
        export.json                the verification, and all facts

The folder is built beside its final place, verified there, and moved as one: a killed export leaves
the old folder or the new one.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import (
    datasets,
    environment,
    folders,
    formats,
    loading,
    model_card,
    quantization,
    runs,
)
from keras_resnet.cli import UserError

TOLERANCE = 1e-4  # largest difference of a probability that a float format may have
DISAGREES = 4  # exit code
VERIFICATION_IMAGES = 256
VERIFICATION_BATCHES = (1, 7, VERIFICATION_IMAGES)
QUANTIZED = "model.int8.onnx"
MAX_INT8_COST = 0.5  # percentage points of test error above which a warning is printed
_WRITTEN = frozenset(
    {*formats.FILES.values(), QUANTIZED, "labels.txt", "MODEL_CARD.md", "README.md", "export.json"}
)


@dataclasses.dataclass(frozen=True)
class _Source:
    """A net and what is known of it."""

    net: keras.Model
    run: dict[str, Any]  # config.json and results.json of its run folder; empty for a bare file
    dataset: str | None  # name
    data: datasets.Dataset | None  # only where it is on this machine
    class_names: tuple[str, ...]


def export(
    path: Path | str,
    output: Path | str | None = None,
    kinds: Sequence[str] = (formats.SAVED_MODEL, formats.ONNX),
    quantize: bool = False,
    opset: int = formats.OPSETS[-1],
    dataset: str | None = None,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Export a net, verify every file of it, and only then put the folder in its place.

    Args:
        path: a run folder or a `.keras` file of ours.
        output: the folder to write; default `<run>/export`, for a file `<stem>-export` beside it.
            An earlier export there is replaced.
        kinds: of `"saved_model"`, `"onnx"`, `"litert"`.
        quantize: also write `model.int8.onnx`.
        opset: of ONNX, 13 to 18.
        dataset: name of the data set the net was trained on; default what the run or the net's
            normalization says.
        data_dir: folder of tensorflow_datasets.

    Returns:
        The content of export.json.

    Raises:
        UserError: for what the user can mend, and (exit code 4) where a float format differs from
            Keras by more than `TOLERANCE` in a probability or at all in a top-1 class.
    """
    start = time.perf_counter()
    _check(kinds, quantize, opset)
    path = Path(path)
    file = loading.model_file(path)
    final = Path(output) if output else _default_output(path)
    net = loading.as_float32(loading.load_keras(file))
    with folders.staged(final, _WRITTEN, marker="export.json") as folder:
        source = _open(net, path, file, dataset, data_dir, needs_data=quantize)
        facts = _facts(source, file, opset)
        print(f"exporting {facts['description']} from {file}", flush=True)
        serving = formats.serving_model(source.net)
        for kind in dict.fromkeys(kinds):
            formats.write(kind, serving, folder / formats.FILES[kind], opset, facts)
        if quantize:
            _quantize(source, folder, facts)
        facts["verification"] = _verify(source, folder)
        _print_table(facts["verification"])
        _judge(facts["verification"], final)
        facts["files"] = {
            item.name: sum(f.stat().st_size for f in [item, *item.rglob("*")] if f.is_file())
            for item in sorted(folder.iterdir())
        }
        facts["seconds"] = round(time.perf_counter() - start, 1)
        card = model_card.text(facts)
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in source.class_names))
        for name in ("MODEL_CARD.md", "README.md"):
            (folder / name).write_text(card)
        (folder / "export.json").write_text(json.dumps(facts, indent=2) + "\n")
    sizes = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in facts["files"].items())
    print(f"wrote {final}: {sizes}; {time.perf_counter() - start:.0f} s")
    return facts


def _check(kinds: Sequence[str], quantize: bool, opset: int) -> None:
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            "exporting needs Keras's tensorflow backend. "
            f"Received: {keras.backend.backend()}; set KERAS_BACKEND=tensorflow"
        )
    unknown = [kind for kind in kinds if kind not in formats.FILES]
    if unknown or not kinds:
        raise UserError(f"--formats must be of {', '.join(formats.FILES)}. Received: {unknown}")
    if opset not in formats.OPSETS:
        raise UserError(
            f"--opset must be {formats.OPSETS[0]} to {formats.OPSETS[-1]}. Received: {opset}"
        )
    if quantize and formats.ONNX not in kinds:
        raise UserError("--quantize makes int8 from the ONNX file: add onnx to --formats")
    if formats.LITERT in kinds:
        formats.check_litert()


def _default_output(path: Path) -> Path:
    return path / "export" if path.is_dir() else path.with_name(f"{path.stem}-export")


# --- what is exported ----------------------------------------------------------------------------


def _open(
    net: keras.Model,
    path: Path,
    file: Path,
    dataset: str | None,
    data_dir: str | None,
    needs_data: bool,
) -> _Source:
    run: dict[str, Any] = {}
    if path.is_dir() or file.name == "model.keras":
        for part in ("config", "results"):
            content = runs.read_json(file.parent / f"{part}.json")
            run[part] = content if isinstance(content, dict) else {}
    settings = run.get("config", {}).get("settings") or {}
    name = dataset or settings.get("dataset") or loading.recognize_dataset(net)
    data = None
    if name:
        folder = datasets.folder_of(name, data_dir, recorded=settings.get("data_dir"))
        if dataset or needs_data or (folder / name).is_dir():
            data = datasets.load(name, str(folder))
    elif needs_data:
        raise UserError(
            "--quantize needs training images, and nothing says which data set this net was "
            f"trained on; name it with --dataset ({', '.join(datasets.NORMALIZATION)})"
        )
    classes = net.output_shape[-1]
    names = run.get("config", {}).get("class_names") or (data.class_names if data else None)
    names = names or [f"class {k}" for k in range(classes)]
    if len(names) != classes:
        raise UserError(f"the net has {classes} classes, but {len(names)} names: {name or file}")
    # A name is a line of labels.txt.
    return _Source(net, run, name, data, tuple(" ".join(str(n).split()) for n in names))


def _facts(source: _Source, file: Path, opset: int) -> dict[str, Any]:
    """What is known of the net, in the form of export.json."""
    config, results = source.run.get("config", {}), source.run.get("results", {})
    facts = loading.describe(source.net)
    trained = f", trained on {source.dataset}" if source.dataset else ""
    shortcut = f", shortcut {facts['shortcut']}" if facts["shortcut"] else ""
    packages = ("onnx", "tf2onnx", "onnxruntime")
    # Of the data set it was trained on, which need not be the one named now.
    same = (config.get("settings") or {}).get("dataset") == source.dataset
    error = results.get("test_error") if same else None
    return {
        "name": source.net.name,
        "description": f"{facts['model']} of depth {facts['depth']}{shortcut}{trained}",
        **facts,
        "parameters": int(sum(np.prod(w.shape) for w in source.net.trainable_variables)),
        "dataset": source.dataset,
        "class_names": list(source.class_names),
        "source": str(file),
        "opset": opset,
        "test_error": {} if error is None else {"keras": error},
        "training": {"config": config, "results": results} if config else None,
        "versions": {**environment.versions(), **{name: version(name) for name in packages}},
        "git_commit": results.get("git_commit") or environment.git_commit(),
    }


def _quantize(source: _Source, folder: Path, facts: dict[str, Any]) -> None:
    data = source.data
    assert data is not None
    chosen = np.random.default_rng(0).permutation(len(data.train_images))
    images = data.train_images[np.sort(chosen[: quantization.CALIBRATION_IMAGES])]
    quantization.quantize(folder / formats.FILES[formats.ONNX], folder / QUANTIZED, images)
    errors = facts["test_error"]
    if (
        "keras" not in errors
    ):  # else measured at the end of training; verified to be the same function
        errors["onnx"] = formats.error(folder / formats.FILES[formats.ONNX], data)
    errors["int8"] = formats.error(folder / QUANTIZED, data)
    float32, int8 = errors.get("keras", errors.get("onnx")), errors["int8"]
    print(
        f"test error on {len(data.test_labels):,} {data.name} images: float32 {float32:.2f} %, "
        f"int8 {int8:.2f} % ({int8 - float32:+.2f})"
    )
    if int8 - float32 > MAX_INT8_COST:
        print(f"warning: int8 costs more than {MAX_INT8_COST} percentage points of test error")


# --- verification --------------------------------------------------------------------------------


def _verification_images(source: _Source) -> tuple[str, np.ndarray]:
    """256 images that fit the net and where they are from."""
    shape = source.net.input_shape[1:]
    if source.data is not None and source.data.test_images.shape[1:] == shape:
        return f"{source.data.name} test", source.data.test_images[:VERIFICATION_IMAGES]
    sizes = (VERIFICATION_IMAGES, VERIFICATION_IMAGES)
    if shape == (32, 32, 3):
        return "synthetic", datasets.synthetic(sizes).test_images
    rng = np.random.default_rng(0)
    return "random", rng.integers(0, 256, (VERIFICATION_IMAGES, *shape), dtype=np.uint8)


def _verify(source: _Source, folder: Path) -> dict[str, Any]:
    """Run every file on the same images in three batch sizes and compare it with Keras."""
    kind, images = _verification_images(source)
    expected = source.net.predict(images.astype(np.float32), batch_size=256, verbose=0)
    files = {name: kind for kind, name in formats.FILES.items()} | {QUANTIZED: formats.ONNX}
    rows = []
    for name in files:
        if not (folder / name).exists():
            continue
        run = formats.runner(files[name], folder / name)
        difference, agreement = 0.0, 0
        for batch in VERIFICATION_BATCHES:
            probabilities, class_id = run(images[:batch])
            if probabilities.shape != expected[:batch].shape or class_id.shape != (batch,):
                raise UserError(
                    f"{name} returned shapes {probabilities.shape} and {class_id.shape} for a "
                    f"batch of {batch}",
                    exit_code=DISAGREES,
                )
            # np.max passes NaN on, max() would not.
            difference = float(np.max([difference, abs(probabilities - expected[:batch]).max()]))
            agreement = int(np.sum(class_id == expected[:batch].argmax(axis=-1)))
        exact = name != QUANTIZED
        passed = bool(difference <= TOLERANCE and agreement == len(images)) if exact else None
        rows.append(
            {"file": name, "difference": difference, "agreement": agreement, "passed": passed}
        )
    return {
        "images": kind,
        "count": len(images),
        "batches": list(VERIFICATION_BATCHES),
        "tolerance": TOLERANCE,
        "rows": rows,
    }


def _print_table(verification: dict[str, Any]) -> None:
    count = verification["count"]
    print(f"compared with Keras on {count} {verification['images']} images:")
    print(f"  {'file':<16} {'largest difference':>18} {'same top-1':>12}")
    for row in verification["rows"]:
        same = f"{row['agreement']}/{count}"
        print(f"  {row['file']:<16} {row['difference']:>18.1e} {same:>12}", flush=True)


def _judge(verification: dict[str, Any], final: Path) -> None:
    failed = [row["file"] for row in verification["rows"] if row["passed"] is False]
    if failed:
        raise UserError(
            f"{', '.join(failed)} does not compute what Keras computes (a difference above "
            f"{TOLERANCE} or another top-1 class, see the table); {final} was left as it was",
            exit_code=DISAGREES,
        )
