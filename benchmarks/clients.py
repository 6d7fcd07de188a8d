"""Which programs read the exported files, and how far are their probabilities from Keras's?

    formats="saved_model onnx openvino litert safetensors"
    python export.py resnet20 --formats $formats --quantize --output exports/all
    python export.py resnet20 --formats onnx --raw --output exports/raw
    pip install onnxsim onnxslim MNN ...; npm install onnxruntime-node onnxruntime-web
    python -m benchmarks.clients exports                              # all clients that are installed
    python -m benchmarks.clients exports --python other/bin/python    # those of another environment

Prints the table of docs/export.md: 16 images of random pixels and the drawn examples, float32 and int8.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from functools import partial
from importlib import import_module as load
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TOOLS, SECONDS = Path(sys.executable).parent, 300


def run(*command: Any, **options: Any) -> bytes:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, **options).stdout


def run_onnxruntime(model: Any, images: np.ndarray, provider: str = "CPU") -> Any:
    providers = [f"{provider}ExecutionProvider"]
    session = load("onnxruntime").InferenceSession(model, providers=providers)
    return session.run(["probabilities"], {"image": images})[0]


def run_rewritten(package: str, file: Path, images: np.ndarray) -> Any:
    module, model = load(package), load("onnx").load(file)
    if package == "onnxsim":
        model, _ = module.simplify(model)
    else:
        model = module.slim(model) if package == "onnxslim" else module.optimize(model)
    return run_onnxruntime(model.SerializeToString(), images)


def run_npm(package: str, file: Path, images: np.ndarray) -> Any:
    script = """
        const ort = require(process.argv[1]), fs = require("fs");
        const image = new ort.Tensor("uint8", fs.readFileSync(0), JSON.parse(process.argv[3]));
        ort.InferenceSession.create(fs.readFileSync(process.argv[2]))
          .then((session) => session.run({ image }, ["probabilities"]))
          .then((found) => console.log(JSON.stringify([...found.probabilities.data])));"""
    shape = json.dumps(images.shape)
    return json.loads(run("node", "-e", script, package, file, shape, input=images.tobytes()))


def run_openvino(file: Path, images: np.ndarray) -> Any:
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return load("openvino").compile_model(file, "CPU", exact)(images)["probabilities"]


def run_opencv(file: Path, images: np.ndarray) -> Any:
    net = load("cv2").dnn.readNetFromONNX(str(file))
    net.setInput(images, "image")
    return net.forward("probabilities")


def run_mnn(file: Path, images: np.ndarray) -> Any:
    mnn, target = load("MNN"), f"{tempfile.mkdtemp()}/net.mnn"
    options = ("-f", "ONNX", "--bizCode", "x", "--modelFile", file, "--MNNModel", target)
    run(TOOLS / "mnnconvert", *options)
    net = mnn.nn.load_module_from_file(target, ["image"], ["probabilities"])
    image = mnn.expr.placeholder(list(images.shape), mnn.expr.NCHW, mnn.expr.uint8)
    image.write(images)
    return net.forward([image])[0].read()


def run_ncnn(file: Path, images: np.ndarray) -> Any:
    ncnn, folder, logits = load("ncnn"), Path(tempfile.mkdtemp()), []
    (folder / "net.onnx").write_bytes(file.read_bytes())
    run(TOOLS / "pnnx", "net.onnx", "inputshape=[1,3,32,32]", cwd=folder)
    net = ncnn.Net()
    net.load_param(str(folder / "net.ncnn.param"))
    net.load_model(str(folder / "net.ncnn.bin"))
    for image in np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32):
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image).clone())
        logits.append(np.array(extractor.extract("out0")[1]))
    return softmax(np.stack(logits))


def run_iree(file: Path, images: np.ndarray) -> Any:
    onnx, folder = load("onnx"), Path(tempfile.mkdtemp())
    model, fixed = onnx.load(file), load("onnxruntime.tools.onnx_model_utils")
    fixed.make_dim_param_fixed(model.graph, "batch", len(images))
    onnx.save(model, folder / "net.onnx")
    for command in (
        "iree-import-onnx net.onnx -o net.mlir --opset-version 21",
        "iree-compile net.mlir --iree-hal-target-device=local -o net.vmfb "
        "--iree-hal-local-target-device-backends=llvm-cpu --iree-llvmcpu-target-cpu=host",
    ):
        run(TOOLS / command.split()[0], *command.split()[1:], cwd=folder)
    module = load("iree.runtime").load_vm_flatbuffer_file(f"{folder}/net.vmfb", driver="local-task")
    function = next(name for name in module.vm_module.function_names if "$" not in name)
    return module[function](images)[0].to_host()


def run_tvm(file: Path, images: np.ndarray) -> Any:
    tvm, relax, onnx = load("tvm"), load("tvm.relax"), load("tvm.relax.frontend.onnx")
    model = load("onnx").load(file)
    module = onnx.from_onnx(model, {"image": images.shape}, {"image": "uint8"})
    executable = tvm.compile(relax.transform.LegalizeOps()(module), target="llvm")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return machine["main"](tvm.runtime.tensor(images))[0].numpy()


def run_litert(file: Path, images: np.ndarray) -> Any:
    interpreter = load("ai_edge_litert.interpreter").Interpreter(str(file))
    return interpreter.get_signature_runner("serving_default")(image=images)["probabilities"]


def run_tensorflow(file: Path, images: np.ndarray) -> Any:
    model = load("tensorflow").saved_model.load(str(file))
    return model.signatures["serving_default"](image=images)["probabilities"].numpy()


def run_akamaster(file: Path, images: np.ndarray) -> Any:
    torch, net = load("torch"), load("resnet").resnet20()  # resnet.py must be on PYTHONPATH
    with load("safetensors").safe_open(file, "pt") as tensors:
        normalization = json.loads(tensors.metadata()["normalization"])
    net.load_state_dict(load("safetensors.torch").load_file(file))
    pixels = (images / 255 - normalization["mean"]) / normalization["std"]
    return softmax(net.eval()(torch.tensor(pixels.transpose(0, 3, 1, 2)).float()).detach().numpy())


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


ONNX = ("all/model.onnx", "all/model.int8.onnx")
LITERT = ("all/model.tflite", "all/model.int8.tflite")
# Name -> package, its files, and how it makes probabilities of a file and uint8 images.
CLIENTS: dict[str, tuple[str, tuple[str, ...], Any]] = {
    "ONNX Runtime": ("onnxruntime", ONNX, run_onnxruntime),
    "ONNX Runtime with the provider OpenVINO": ("onnxruntime-openvino", ONNX,
        lambda file, images: run_onnxruntime(file, images, "OpenVINO")),
    "ONNX Runtime for Node": ("onnxruntime-node", ONNX, partial(run_npm, "onnxruntime-node")),
    "ONNX Runtime Web, in Node": ("onnxruntime-web", ONNX, partial(run_npm, "onnxruntime-web")),
    "onnx, reference evaluator": ("onnx", ONNX, lambda file, images:
        load("onnx.reference").ReferenceEvaluator(str(file)).run(["probabilities"], {"image": images})),
    "onnxsim, then ONNX Runtime": ("onnxsim", ONNX, partial(run_rewritten, "onnxsim")),
    "onnxslim, then ONNX Runtime": ("onnxslim", ONNX, partial(run_rewritten, "onnxslim")),
    "onnxoptimizer, then ONNX Runtime": ("onnxoptimizer", ONNX, partial(run_rewritten, "onnxoptimizer")),
    "onnxscript's optimizer, then ONNX Runtime": ("onnxscript", ONNX,
        partial(run_rewritten, "onnxscript.optimizer")),
    "OpenVINO": ("openvino", ONNX, run_openvino),
    "OpenVINO, its own files": ("openvino", ("all/openvino_model/model.xml",), run_openvino),
    "OpenCV": ("opencv-python-headless", ONNX, run_opencv),
    "tract": ("tract", ONNX, lambda file, images:
        load("tract").onnx().load(file).into_model().into_runnable().run([images])[0].to_numpy()),
    "onnx2torch, PyTorch": ("onnx2torch", ONNX, lambda file, images:
        load("onnx2torch").convert(str(file))(load("torch").tensor(images))[0].detach().numpy()),
    "MNN (its input declared NCHW, as it calls any ONNX input)": ("MNN", ONNX, run_mnn),
    "ncnn by pnnx, which makes the weights float16, from `--raw`": ("ncnn", ("raw/model.onnx",), run_ncnn),
    "IREE, the batch fixed": ("iree-base-compiler", ONNX, run_iree),
    "TVM": ("apache-tvm", ONNX, run_tvm),
    "LiteRT, its own files": ("ai-edge-litert", LITERT, run_litert),
    "TensorFlow, the SavedModel": ("tensorflow", ("all/saved_model",), run_tensorflow),
    "PyTorch with akamaster's resnet.py, the safetensors": ("safetensors", ("all/model.safetensors",),
        run_akamaster),
}  # fmt: skip


def test_images() -> np.ndarray:
    paths = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.png"))
    drawn = [np.asarray(Image.open(p).convert("RGB").resize((32, 32))) for p in paths]
    noise = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    return np.concatenate([np.stack(drawn), noise])


def run_client(python: str, name: str, file: Path, expected: str) -> list[str]:
    """Version and cell of the table, from a process of its own: a client may crash or hang."""
    command = [python, "-m", "benchmarks.clients", file, "--client", name, expected]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return ["?", f"no answer in {SECONDS} s"]
    lines = done.stdout.strip().splitlines()
    if done.returncode and lines:
        errors = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        lines.append(f"not read: {errors[-1][:70]}")
    return lines[:1] + lines[-1:]


def print_result(name: str, file: Path, expected: str) -> None:
    """What `run_client` reads; nothing for a client that is not installed."""
    package, _, function = CLIENTS[name]
    of_npm = Path("node_modules", package, "package.json")
    try:
        npm = json.loads(of_npm.read_text())["version"] if of_npm.is_file() else None
        print(npm or importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return
    images, keras_found = test_images(), np.load(expected)
    found = np.asarray(function(file, images)).reshape(keras_found.shape)
    same = int((found.argmax(axis=1) == keras_found.argmax(axis=1)).sum())
    print(f"\n{abs(found - keras_found).max():.0e}, {same}/{len(images)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="the folder of the two exports")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the clients")
    parser.add_argument("--client", nargs=2, help=argparse.SUPPRESS)  # of one process, on one file
    arguments = parser.parse_args()
    if arguments.client:
        return print_result(arguments.client[0], arguments.path, arguments.client[1])
    import keras

    net = keras.models.load_model(arguments.path / "all/model.keras")
    print("| client | version | float32 | int8 |\n|---|---|---|---|")
    with tempfile.NamedTemporaryFile(suffix=".npy") as expected:
        np.save(expected, net.predict(test_images().astype(np.float32), verbose=0))
        expected.flush()
        for name, (_, files, _) in CLIENTS.items():
            paths = [arguments.path / file for file in files]
            found = [run_client(arguments.python, name, path, expected.name) for path in paths]
            if found[0]:
                cells = [name, found[0][0], *(cell for _, cell in found), ""][:4]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
