"""Commands, processes, nets, files and images that several tests use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

import keras_resnet
from keras_resnet.__main__ import main
from keras_resnet.commands import terminal
from keras_resnet.runs.folder import RunFolder

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = REPOSITORY / "tests/golden"
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Flags of a run of a second; of two equal flags the last counts.
SMALL = (
    "--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=8", "--steps=8", "--name=x",
)  # fmt: skip


def call(*arguments):
    """The exit code of the `keras-resnet` command, in this process."""
    try:
        return terminal.run(lambda: main([str(a) for a in arguments]))
    except SystemExit as stop:
        return int(stop.code or 0)


def train(output, *flags):
    """The exit code of a small training into `output`."""
    return call("train", *SMALL, "--output-dir", output, *flags)


def python(*words, absent="", cwd=REPOSITORY, stdout=subprocess.PIPE, **variables):
    """Python in a process of its own, without what conftest.py sets and the modules `absent`."""
    if absent:
        code = f"import sys; sys.modules.update(dict.fromkeys({absent.split()}))\n{words[1]}"
        words = ("-c", code, *words[2:])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(REPOSITORY), **variables},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )


def start_python(*words, cwd=REPOSITORY, **options):
    """Start Python in a process of its own, whose output comes through pipes."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=cwd, **pipes, **options)


def contents(folder):
    """Path -> bytes of every file in a folder but its lock."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


def state_of(folder):
    """What must be the same of two runs: metrics without rates, results without times, weights."""
    folder = RunFolder(folder)
    rows = [{**row, "images_per_second": None} for row in folder.read_metrics()]
    results = dict(folder.read_results())
    for key in ("seconds", "images_per_second", "peak_memory_mib", "git_commit"):
        results.pop(key)
    net = keras.models.load_model(folder.model_path)
    return rows, results, [weight.tobytes() for weight in net.get_weights()]


def golden_state(golden, depth, projection=True):
    """PyTorch's state_dict of a golden net, by its own keys and in its order, in float32."""
    prefix, state = f"weights{depth}/", {}
    for key, value in golden.items():
        name = key.removeprefix(prefix)
        if name == key or key.endswith("/scale") or ("shortcut" in key and not projection):
            continue
        state[name] = value.astype("float32") * golden.get(f"{key}/scale", np.float32(1))
    return state


def logits_of(net):
    return keras.Model(net.input, net.get_layer("head_dense").output)


def random_images(*shape, seed=0):
    """uint8 images, each of another color, with noise; one image where only a size is given."""
    rng = np.random.default_rng(seed)
    color = rng.integers(0, 192, (*shape[:-2], 1, 1, 3), dtype=np.uint8)
    return color + rng.integers(0, 64, (*shape, 3), dtype=np.uint8)


def make_net(**options):
    """A net with random statistics that takes images of other colors for other classes."""
    build = keras_resnet.plain if options.pop("plain", False) else keras_resnet.resnet
    net = build(8, **options)
    rng = np.random.default_rng(0)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([w + rng.uniform(0.1, 0.5, w.shape) for w in layer.get_weights()])
    head = net.get_layer("head_dense")
    logits = logits_of(net).predict_on_batch(random_images(64, *net.input_shape[1:3]))
    scale = 2 / logits.std(axis=0)
    head.set_weights([head.get_weights()[0] * scale, -logits.mean(axis=0) * scale])
    return net


def export(net, folder, names=NAMES):
    """A run folder with an export folder: model.keras, saved_model/ + labels.txt, model.onnx."""
    import onnx
    import tensorflow as tf
    import tf2onnx

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


def onnx_model(path, nodes, inputs, outputs, constants=()):
    """An ONNX file of nodes and (name, type, shape) of inputs and outputs."""
    from onnx import helper, save

    ends = [[helper.make_tensor_value_info(*item) for item in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *ends, list(constants))
    opsets = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path
