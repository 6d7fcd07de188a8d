"""Which programs read the exported files, and how far are their probabilities from Keras's?

    python export.py resnet20 --formats saved_model onnx litert --quantize --half --output exported
    pip install openvino opencv-python-headless onnxsim onnxslim onnx2torch MNN iree-base-compiler ...
    python -m benchmarks.clients exported          each client that is installed, in its own process

Prints the table of docs/export.md: 16 images of random pixels and the drawn examples, float32 and int8.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Client = Callable[[Path, np.ndarray], Any]  # from a file and uint8 images to probabilities
CLIENTS: dict[str, tuple[str, Client]] = {}  # package -> name, client
SECONDS = 300


def client(name: str, package: str) -> Callable[[Client], Client]:
    def register(function: Client) -> Client:
        CLIENTS[package] = (name, function)
        return function

    return register


@client("ONNX Runtime", "onnxruntime")
def run_onnxruntime(file: Any, images: np.ndarray) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"image": images})[0]


@client("onnx, reference evaluator", "onnx")
def run_reference(file: Path, images: np.ndarray) -> Any:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(str(file)).run(["probabilities"], {"image": images})[0]


@client("OpenVINO", "openvino")
def run_openvino(file: Path, images: np.ndarray) -> Any:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.compile_model(file, "CPU", exact)(images)["probabilities"]


@client("OpenCV", "opencv-python-headless")
def run_opencv(file: Path, images: np.ndarray) -> Any:
    import cv2

    net = cv2.dnn.readNetFromONNX(str(file))
    net.setInput(images, "image")
    return net.forward("probabilities")


@client("onnxsim, then ONNX Runtime", "onnxsim")
def run_onnxsim(file: Path, images: np.ndarray) -> Any:
    import onnx
    import onnxsim

    model, same = onnxsim.simplify(onnx.load(file))
    assert same
    return run_onnxruntime(model.SerializeToString(), images)


@client("onnxslim, then ONNX Runtime", "onnxslim")
def run_onnxslim(file: Path, images: np.ndarray) -> Any:
    import onnxslim

    return run_onnxruntime(onnxslim.slim(str(file)).SerializeToString(), images)


@client("onnxscript's optimizer, then ONNX Runtime", "onnxscript")
def run_onnxscript(file: Path, images: np.ndarray) -> Any:
    import onnx
    import onnxscript.optimizer

    model = onnxscript.optimizer.optimize(onnx.load(file))
    return run_onnxruntime(model.SerializeToString(), images)


@client("onnx2torch", "onnx2torch")
def run_onnx2torch(file: Path, images: np.ndarray) -> Any:
    import onnx2torch
    import torch

    with torch.no_grad():
        return onnx2torch.convert(str(file))(torch.tensor(images))[0].numpy()


@client("MNN", "MNN")
def run_mnn(file: Path, images: np.ndarray) -> Any:
    import MNN

    target = Path(tempfile.mkdtemp()) / "model.mnn"
    convert = Path(sys.executable).with_name("mnnconvert")
    options = ["-f", "ONNX", "--modelFile", file, "--MNNModel", target, "--bizCode", "x"]
    subprocess.run([convert, *options], check=True, stdout=subprocess.DEVNULL)
    net = MNN.nn.load_module_from_file(str(target), ["image"], ["probabilities"])
    image = MNN.expr.placeholder(
        list(images.shape), MNN.expr.NCHW, MNN.expr.uint8
    )  # as it is in ONNX
    image.write(images)
    return net.forward([image])[0].read()


@client("IREE", "iree-base-compiler")
def run_iree(file: Path, images: np.ndarray) -> Any:
    import iree.runtime
    import onnx
    from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

    folder = Path(tempfile.mkdtemp())
    model = onnx.load(file)
    make_dim_param_fixed(model.graph, "batch", len(images))
    onnx.save(model, folder / "fixed.onnx")
    tools = Path(sys.executable).parent
    for command in (
        [tools / "iree-import-onnx", "fixed.onnx", "-o", "net.mlir", "--opset-version", "21"],
        [tools / "iree-compile", "net.mlir", "--iree-hal-target-device=local",
         "--iree-hal-local-target-device-backends=llvm-cpu", "--iree-llvmcpu-target-cpu=host",
         "-o", "net.vmfb"],
    ):  # fmt: skip
        subprocess.run(command, check=True, cwd=folder, stderr=subprocess.DEVNULL)
    module = iree.runtime.load_vm_flatbuffer_file(str(folder / "net.vmfb"), driver="local-task")
    function = next(name for name in module.vm_module.function_names if "$" not in name)
    return module[function](images)[0].to_host()


@client("TVM", "apache-tvm")
def run_tvm(file: Path, images: np.ndarray) -> Any:
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    module = from_onnx(onnx.load(file), {"image": images.shape}, {"image": "uint8"})
    executable = tvm.compile(relax.transform.LegalizeOps()(module), target="llvm")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return machine["main"](tvm.runtime.tensor(images))[0].numpy()


@client("LiteRT", "ai-edge-litert")
def run_litert(file: Path, images: np.ndarray) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file.with_name("model.tflite")))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], images.shape)
    return interpreter.get_signature_runner("serving_default")(image=images)["probabilities"]


@client("TensorFlow, SavedModel", "tensorflow")
def run_tensorflow(file: Path, images: np.ndarray) -> Any:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(file.with_name("saved_model")))
    outputs = loaded.signatures["serving_default"](image=tf.constant(images))
    return outputs["probabilities"].numpy()


def test_images() -> np.ndarray:
    paths = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.png"))
    drawn = [np.asarray(Image.open(p).convert("RGB").resize((32, 32))) for p in paths]
    noise = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    return np.concatenate([np.stack(drawn), noise])


def run_client(package: str, file: Path, expected: Path) -> str:
    """A cell of the table, from a process of its own: a client may crash or hang."""
    command = [sys.executable, "-m", "benchmarks.clients", file, "--client", package, expected]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer in {SECONDS} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1][:70] if lines else f"exit code {done.returncode}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="a folder that export.py wrote")
    parser.add_argument("--client", nargs=2, help=argparse.SUPPRESS)  # of one process, on one file
    arguments = parser.parse_args()
    images = test_images()
    if arguments.client:
        package, expected = arguments.client
        found = np.asarray(CLIENTS[package][1](arguments.path, images)).reshape(len(images), -1)
        keras_found = np.load(expected)
        same = int((found.argmax(axis=1) == keras_found.argmax(axis=1)).sum())
        print(f"\n{abs(found - keras_found).max():.0e}, {same}/{len(images)}")
        return
    import keras

    net = keras.models.load_model(arguments.path / "model.keras")
    print("| client | version | float32 | int8 |\n|---|---|---|---|")
    with tempfile.NamedTemporaryFile(suffix=".npy") as expected:
        np.save(expected, net.predict(images.astype(np.float32), verbose=0))
        expected.flush()
        for package, (name, _) in CLIENTS.items():
            try:
                version = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
            files = ["model.onnx", "model.int8.onnx"]
            files = files[:1] if package in ("ai-edge-litert", "tensorflow") else files
            cells = [run_client(package, arguments.path / f, Path(expected.name)) for f in files]
            print(f"| {name} | {version} | {' | '.join([*cells, '-'][:2])} |", flush=True)


if __name__ == "__main__":
    main()
