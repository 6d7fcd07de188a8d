"""Check that every exported file computes what Keras computes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import console
from keras_resnet.data import synthetic
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import DISAGREES, UserError
from keras_resnet.export import keras_file, litert, onnx_file, openvino, saved_model, torch_weights
from keras_resnet.export.options import Options
from keras_resnet.export.signature import Predict, in_batches
from keras_resnet.inference.open import open_net

# Largest difference that a file may have: of a probability, or of another output over its largest value.
TOLERANCE, HALF_TOLERANCE = 1e-4, 2e-2
_OTHER_LIMITS = {
    onnx_file.HALF_FILE: HALF_TOLERANCE,
    onnx_file.INT8_FILE: None,
    litert.INT8_FILE: None,
}
IMAGES = 256
BATCHES = (1, 7, IMAGES)


def _load(path: Path) -> Predict:
    return open_net(path).run


LOADERS: dict[str, Callable[[Path], Predict]] = {
    keras_file.FILE: keras_file.load,
    saved_model.FOLDER: _load,
    onnx_file.FILE: _load,
    openvino.FOLDER: openvino.load,
    litert.FILE: litert.load,
    torch_weights.FILE: torch_weights.load,
    onnx_file.HALF_FILE: _load,
    onnx_file.INT8_FILE: _load,
    litert.INT8_FILE: litert.load,
}


def verify(
    net: keras.Model, folder: Path, data: Dataset | None, options: Options
) -> dict[str, Any]:
    """Compare every file of an export with the net, in batches of 1, 7, 256 or the fixed size; print a table.

    `net` is what `signature.with_all_outputs` returned. Returns the `verification` of export.json: a row has
    the file's name, its largest difference and the limit of that, how many images get the net's class in
    every batch (all, where the file gives features alone), and whether it passed. int8, which is rounded, has
    no limit. Raises UserError (exit code 4) where a file did not pass.
    """
    kind, images = _images(net.input_shape[1:], data)
    expected = net.predict(images.astype(np.float32), batch_size=IMAGES, verbose=0)
    classes = expected["probabilities"].argmax(axis=-1)
    console.print_line(f"compared with Keras on {IMAGES} {kind} images:")
    console.print_line(f"  {'file':<17} {'largest difference':>18} {'same top-1':>12}")
    rows: list[dict[str, Any]] = []
    for name, load in LOADERS.items():
        if not (folder / name).exists():
            continue
        predict, given, worst, agreement = load(folder / name), images, 0.0, IMAGES
        if name not in (keras_file.FILE, torch_weights.FILE):
            predict, given = in_batches(predict, options.batch_size), options.prepare(images)
        for batch in BATCHES:
            outputs = predict(given[:batch])
            for output in outputs.keys() & expected.keys():
                difference = abs(outputs[output] - expected[output][:batch]).max()
                # np.max keeps NaN, max() would not.
                worst = float(np.max([worst, difference / max(1, abs(expected[output]).max())]))
            found = top_class(outputs)
            if found is not None:
                agreement = min(agreement, IMAGES - batch + int(np.sum(found == classes[:batch])))
        limit = _OTHER_LIMITS.get(name, TOLERANCE)
        same = agreement == IMAGES or limit == HALF_TOLERANCE
        passed = None if limit is None else worst <= limit and same
        row = {"file": name, "difference": worst, "tolerance": limit, "agreement": agreement}
        rows.append({**row, "passed": passed})
        console.print_line(f"  {name:<17} {worst:>18.1e} {f'{agreement}/{IMAGES}':>12}")
    if failed := [row["file"] for row in rows if row["passed"] is False]:
        raise UserError(
            f"{', '.join(failed)} does not compute what Keras computes (see the table: a difference "
            f"above {TOLERANCE} (float16: {HALF_TOLERANCE}), or another top-1 class); nothing was exported",
            exit_code=DISAGREES,
        )
    batches = [options.batch_size] if options.batch_size else list(BATCHES)
    return {"images": kind, "count": IMAGES, "batches": batches, "rows": rows}


def top_class(outputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The class of each image; None where the outputs are features alone."""
    if "class_id" in outputs:
        return outputs["class_id"]
    scores = outputs.get("probabilities", outputs.get("logits"))
    return None if scores is None else scores.argmax(axis=-1)


def _images(shape: tuple[int, ...], data: Dataset | None) -> tuple[str, np.ndarray]:
    """256 uint8 images of a shape, and what they are: test images where the data set has that shape."""
    if data is not None and data.test_images.shape[1:] == shape:
        repeated = "repeated " if len(data.test_images) < IMAGES else ""
        images = np.resize(data.test_images[:IMAGES], (IMAGES, *shape))
        return f"{repeated}{data.name} test", images
    if shape == (32, 32, 3):
        return "synthetic", synthetic.synthetic((IMAGES, IMAGES)).test_images
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, *shape), dtype=np.uint8)
    return "random", noise
