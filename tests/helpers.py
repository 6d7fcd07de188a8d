"""Nets, files and images that several tests look at."""

from __future__ import annotations

import json
import shutil
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
    row = zlib.compressobj(9)
    data = (
        b"".join(row.compress(b"\0" * (1 + (width + 7) // 8)) for _ in range(height)) + row.flush()
    )

    def chunk(kind, body):
        return (
            len(body).to_bytes(4, "big") + kind + body
            + zlib.crc32(kind + body).to_bytes(4, "big")
        )  # fmt: skip

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def bad_models(folder, files):
    """name -> (path, what the message says): the table of bad input."""
    uint8, float32 = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
    made = {}

    def write(name, content, message):
        (folder / name).write_bytes(content)
        made[name] = (folder / name, message)

    made["missing"] = (folder / "no.keras", "does not exist")
    (folder / "empty").mkdir()
    made["empty folder"] = (folder / "empty", "empty")
    whole = files["keras"].read_bytes()
    write("truncated.keras", whole[: len(whole) // 2], "damaged")
    write("zero.keras", b"", "damaged")
    zipped = shutil.make_archive(
        str(folder / "z"), "zip", files["saved_model"].parent, "labels.txt"
    )
    write("zip.keras", Path(zipped).read_bytes(), "could not be opened as a Keras file")
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save(folder / "other.keras")
    made["other.keras"] = (folder / "other.keras", "must take RGB images")
    write("model.h5", b"x", r"must be a \.keras file.*another file")
    proto = files["onnx"].read_bytes()
    write("truncated.onnx", proto[: len(proto) // 2], "could not be read as an ONNX")
    write("zero.onnx", b"", "ONNX|not a model")
    write("text.onnx", b"I am a poem.\n", "could not be read as an ONNX")
    for name, inputs in {
        "name.onnx": [("input", uint8, ["N", 32, 32, 3])],
        "float.onnx": [("image", float32, ["N", 32, 32])],
        "two.onnx": [("image", uint8, ["N", 32, 32, 3]), ("mask", uint8, ["N"])],
    }.items():
        made[name] = (foreign_onnx(folder / name, inputs), r"must take RGB images")
    for name, shape in {
        "channels-first": ["N", 3, 32, 32],
        "fixed": [1, 32, 32, 3],
        "rank": [3],
    }.items():
        path = foreign_onnx(folder / f"{name}.onnx", [("image", uint8, shape)])
        made[name] = (path, r"must take RGB images \(N, height, width, 3\)")
    (folder / "saved").mkdir()
    (folder / "saved/saved_model.pb").write_bytes(b"I am a poem.\n")
    made["text SavedModel"] = (folder / "saved", "could not be read as a SavedModel")
    shutil.copytree(files["saved_model"], folder / "torn")
    for file in (folder / "torn/variables").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    made["torn SavedModel"] = (folder / "torn", "could not be read as a SavedModel")
    module = tf.Module()
    module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec((None, 4), name="x")])
    tf.saved_model.save(module, str(folder / "foreign"), signatures={"serving_default": module.f})
    made["foreign SavedModel"] = (folder / "foreign", "must take RGB images")
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
