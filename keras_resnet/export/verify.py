"""Every exported file computes what Keras computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet import console
from keras_resnet.data import synthetic
from keras_resnet.errors import DISAGREES, UserError
from keras_resnet.export import choices, formats
from keras_resnet.export.source import Source

TOLERANCE = 1e-4  # largest difference of a probability that a float format may have
VERIFICATION_IMAGES = 256
VERIFICATION_BATCHES = (1, 7, VERIFICATION_IMAGES)


def _verification_images(source: Source) -> tuple[str, np.ndarray]:
    """256 images that fit the net and where they are from."""
    shape = source.net.input_shape[1:]
    if source.data is not None and source.data.test_images.shape[1:] == shape:
        return f"{source.data.name} test", source.data.test_images[:VERIFICATION_IMAGES]
    sizes = (VERIFICATION_IMAGES, VERIFICATION_IMAGES)
    if shape == (32, 32, 3):
        return "synthetic", synthetic.synthetic(sizes).test_images
    rng = np.random.default_rng(0)
    return "random", rng.integers(0, 256, (VERIFICATION_IMAGES, *shape), dtype=np.uint8)


def compare(source: Source, folder: Path) -> dict[str, Any]:
    """Run every file on the same images in three batch sizes and compare it with Keras."""
    kind, images = _verification_images(source)
    expected = source.net.predict(images.astype(np.float32), batch_size=256, verbose=0)
    files = {name: kind for kind, name in formats.FILES.items()} | {formats.QUANTIZED: choices.ONNX}
    rows = []
    for name in files:
        if not (folder / name).exists():
            continue
        run = formats.runner(files[name], folder / name)
        difference, others = 0.0, 0
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
            others = max(others, int(np.sum(class_id != expected[:batch].argmax(axis=-1))))
        agreement = len(images) - others
        exact = name != formats.QUANTIZED
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


def print_table(verification: dict[str, Any]) -> None:
    count = verification["count"]
    console.print_line(f"compared with Keras on {count} {verification['images']} images:")
    console.print_line(f"  {'file':<16} {'largest difference':>18} {'same top-1':>12}")
    for row in verification["rows"]:
        same = f"{row['agreement']}/{count}"
        console.print_line(f"  {row['file']:<16} {row['difference']:>18.1e} {same:>12}")


def judge(verification: dict[str, Any], final: Path) -> None:
    failed = [row["file"] for row in verification["rows"] if row["passed"] is False]
    if failed:
        raise UserError(
            f"{', '.join(failed)} does not compute what Keras computes (a difference above "
            f"{TOLERANCE} or another top-1 class, see the table); {final} was left as it was",
            exit_code=DISAGREES,
        )
