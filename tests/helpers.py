"""Nets, files and images that several tests look at."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx

import keras_resnet
from keras_resnet.__main__ import main
from keras_resnet.commands import terminal

REPOSITORY = Path(__file__).resolve().parent.parent
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FORMATS = ("keras", "saved_model", "onnx")


def call(*arguments):
    """The exit code of the `keras-resnet` command, in this process."""
    try:
        return terminal.run(lambda: main([str(a) for a in arguments]))
    except SystemExit as stop:
        return int(stop.code or 0)


def random_images(*shape, seed=0):
    """uint8 images, each of another color, with noise; one image where only a size is given."""
    rng = np.random.default_rng(seed)
    color = rng.integers(0, 192, (*shape[:-2], 1, 1, 3), dtype=np.uint8)
    return color + rng.integers(0, 64, (*shape, 3), dtype=np.uint8)


def make_net(**options):
    """A net with random statistics that takes images of other colors for other classes."""
    net = keras_resnet.resnet(8, **options)
    rng = np.random.default_rng(0)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([w + rng.uniform(0.1, 0.5, w.shape) for w in layer.get_weights()])
    head = net.get_layer("head_dense")
    logits = keras.Model(net.input, head.output).predict_on_batch(
        random_images(64, *net.input_shape[1:3])
    )
    scale = 2 / logits.std(axis=0)
    head.set_weights([head.get_weights()[0] * scale, -logits.mean(axis=0) * scale])
    return net


def export(net, folder, names=NAMES):
    """A run folder with an export folder: model.keras, saved_model/ + labels.txt, model.onnx."""
    (folder / "export").mkdir(parents=True)
    net.save(folder / "model.keras")
    (folder / "config.json").write_text(json.dumps({"settings": {}, "class_names": names}))
    spec = tf.TensorSpec((None, *net.input_shape[1:]), tf.uint8, name="image")

    @tf.function(input_signature=[spec])
    def serve(image):
        probabilities = net(tf.cast(image, tf.float32), training=False)
        return {"probabilities": probabilities, "class_id": tf.argmax(probabilities, axis=1)}

    archive = keras.export.ExportArchive()
    archive.track(net)
    archive.add_endpoint("serving_default", serve, [spec])
    archive.write_out(folder / "export/saved_model", verbose=False)
    (folder / "export/labels.txt").write_text("\n".join(names) + "\n")
    proto, _ = tf2onnx.convert.from_function(serve, [spec], opset=18)
    onnx.helper.set_model_props(proto, {"names": str(dict(enumerate(names)))})
    onnx.save(proto, folder / "export/model.onnx")
    return {
        "keras": folder / "model.keras",
        "saved_model": folder / "export/saved_model",
        "onnx": folder / "export/model.onnx",
    }


def bomb_png(width, height):
    """A PNG of `width` x `height` black pixels, one bit each: small as a file."""
    parts = {
        b"IHDR": struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(height * (1 + (width + 7) // 8))),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bad_models(folder, files):
    """name -> (path, what the message says): models that cannot be opened."""
    uint8, float32 = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
    keras_file, onnx_file = files["keras"].read_bytes(), files["onnx"].read_bytes()
    (folder / "empty").mkdir()
    made = {
        "missing": (folder / "no.keras", "does not exist"),
        "empty folder": (folder / "empty", "empty"),
    }
    for name, content, message in (
        ("truncated.keras", keras_file[: len(keras_file) // 2], "damaged"),
        ("zero.keras", b"", "damaged"),
        ("model.h5", b"x", r"must be a \.keras file.*another file"),
        ("truncated.onnx", onnx_file[: len(onnx_file) // 2], "could not be read as an ONNX"),
        ("zero.onnx", b"", "ONNX|not a model"),
        ("text.onnx", b"I am a poem.\n", "could not be read as an ONNX"),
    ):
        (folder / name).write_bytes(content)
        made[name] = (folder / name, message)
    images = r"must take RGB images \(N, height, width, 3\)"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(folder / "other.keras")
    made["other.keras"] = (folder / "other.keras", "must take RGB images")
    for name, inputs in {
        "name": [("input", uint8, ["N", 32, 32, 3])],
        "float": [("image", float32, ["N", 32, 32])],
        "two": [("image", uint8, ["N", 32, 32, 3]), ("mask", uint8, ["N"])],
        "channels-first": [("image", uint8, ["N", 3, 32, 32])],
        "fixed": [("image", uint8, [1, 32, 32, 3])],
        "rank": [("image", uint8, [3])],
    }.items():
        made[name] = (foreign_onnx(folder / f"{name}.onnx", inputs), images)
    (folder / "saved").mkdir()
    (folder / "saved/saved_model.pb").write_bytes(b"I am a poem.\n")
    made["text SavedModel"] = (folder / "saved", "could not be read as a SavedModel")
    shutil.copytree(files["saved_model"], folder / "torn")
    for file in (folder / "torn/variables").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    made["torn SavedModel"] = (folder / "torn", "could not be read as a SavedModel")
    return made


def foreign_onnx(path, inputs):
    """An ONNX model with the given inputs (name, type, shape) that returns the first."""
    info = [onnx.helper.make_tensor_value_info(*item) for item in inputs]
    name, kind, shape = inputs[0]
    out = onnx.helper.make_tensor_value_info("probabilities", kind, shape)
    node = onnx.helper.make_node("Identity", [name], ["probabilities"])
    graph = onnx.helper.make_graph([node], "g", info, [out])
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path
