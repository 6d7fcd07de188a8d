"""Keras's own format: write it, and open it as its users do."""

import json
import os
import time
import zipfile
from pathlib import Path

import keras

from keras_resnet.export.signature import Predict

FILE = "model.keras"  # in every export


def write(net: keras.Model, file: Path) -> None:
    """Write the file, and the same unpacked: `keras.models.load_model` opens the folder, also as hf://.

    Its dates are SOURCE_DATE_EPOCH, where that is set.
    """
    net.save(file)
    with zipfile.ZipFile(file) as archive:
        archive.extractall(file.parent)
        names = archive.namelist()
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        seconds = min(max(int(epoch), 315_532_800), 4_354_819_198)  # ZIP's dates: 1980 to 2107
        date, metadata = time.gmtime(seconds), file.with_name("metadata.json")
        content = json.loads(metadata.read_text())
        content["date_saved"] = time.strftime("%Y-%m-%d@%H:%M:%S", date)
        metadata.write_text(json.dumps(content))
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name, date[:6]), file.with_name(name).read_bytes())


def load(path: Path) -> Predict:
    """Open the file as its users do."""
    net = keras.models.load_model(path, compile=False)
    return lambda images: {"probabilities": net.predict_on_batch(images)}
