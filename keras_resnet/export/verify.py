"""Check that every exported file computes what Keras computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import console
from keras_resnet.data import synthetic
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import DISAGREES, UserError
from keras_resnet.export import onnx_file, tensorflow_files
from keras_resnet.export.options import FILES, INT8_FILE, KERAS_FILE, LITERT, ONNX, SAVED_MODEL
from keras_resnet.export.signature import Predict

TOLERANCE = 1e-4  # largest difference of a probability that a float32 file may have
IMAGES = 256
BATCHES = (1, 7, IMAGES)


def _load_keras(path: Path) -> Predict:
    net = keras.models.load_model(path, compile=False)

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        probabilities = net.predict_on_batch(images)
        return {"probabilities": probabilities, "class_id": probabilities.argmax(axis=-1)}

    return predict


LOADERS: dict[str, Callable[[Path], Predict]] = {
    KERAS_FILE: _load_keras,
    FILES[SAVED_MODEL]: tensorflow_files.load_saved_model,
    FILES[ONNX]: onnx_file.load,
    FILES[LITERT]: tensorflow_files.load_litert,
    INT8_FILE: onnx_file.load,
}


def verify(net: keras.Model, folder: Path, data: Dataset | None) -> dict[str, Any]:
    """Compare every file of an export with the net in batches of 1, 7 and 256, and print the result.

    Returns:
        The `verification` of export.json. A row is a file's name, its largest difference of a probability,
        the number of images that get the net's class in every batch, and whether it passed: None for
        int8, which is rounded.

    Raises:
        UserError: (exit code 4) where a float32 file did not pass.
    """
    kind, images = _images(net.input_shape[1:], data)
    expected = net.predict(images.astype(np.float32), batch_size=IMAGES, verbose=0)
    console.print_line(f"compared with Keras on {IMAGES} {kind} images:")
    console.print_line(f"  {'file':<16} {'largest difference':>18} {'same top-1':>12}")
    rows: list[dict[str, Any]] = []
    for name, load in LOADERS.items():
        if not (folder / name).exists():
            continue
        predict, difference, agreement = load(folder / name), 0.0, IMAGES
        for batch in BATCHES:
            outputs = predict(images[:batch])
            # np.max keeps NaN, max() would not.
            differences = abs(outputs["probabilities"] - expected[:batch])
            difference = float(np.max([difference, differences.max()]))
            same = int(np.sum(outputs["class_id"] == expected[:batch].argmax(axis=-1)))
            agreement = min(agreement, IMAGES - batch + same)
        passed = None if name == INT8_FILE else difference <= TOLERANCE and agreement == IMAGES
        row = {"file": name, "difference": difference, "agreement": agreement, "passed": passed}
        rows.append(row)
        console.print_line(f"  {name:<16} {difference:>18.1e} {f'{agreement}/{IMAGES}':>12}")
    if failed := [row["file"] for row in rows if row["passed"] is False]:
        raise UserError(
            f"{', '.join(failed)} does not compute what Keras computes (a difference above "
            f"{TOLERANCE} or another top-1 class, see the table); nothing was exported",
            exit_code=DISAGREES,
        )
    return {
        "images": kind, "count": IMAGES, "batches": list(BATCHES), "tolerance": TOLERANCE,
        "rows": rows,
    }  # fmt: skip


def _images(shape: tuple[int, ...], data: Dataset | None) -> tuple[str, np.ndarray]:
    """256 uint8 images of a shape, and what they are: test images where the data set has that shape."""
    if data is not None and data.test_images.shape[1:] == shape:
        return f"{data.name} test", np.resize(data.test_images[:IMAGES], (IMAGES, *shape))
    if shape == (32, 32, 3):
        return "synthetic", synthetic.synthetic((IMAGES, IMAGES)).test_images
    rng = np.random.default_rng(0)
    return "random", rng.integers(0, 256, (IMAGES, *shape), dtype=np.uint8)
