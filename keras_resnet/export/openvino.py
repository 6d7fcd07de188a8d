"""OpenVINO's own format, converted from the ONNX file: write it, and open it as its users do."""

from pathlib import Path

from keras_resnet.export import onnx_file
from keras_resnet.export.signature import Predict

FOLDER = "openvino_model"  # not `openvino`: that would shadow the package for scripts beside it


def write(folder: Path) -> None:
    """Write the folder from the ONNX file beside it."""
    import openvino

    model = openvino.Core().read_model(folder.with_name(onnx_file.FILE))
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


def load(folder: Path) -> Predict:
    """Open the folder as its users do."""
    import openvino

    # Its default on CPUs with instructions for it is bfloat16.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.compile_model(folder / "model.xml", "CPU", settings)
    return lambda images: {key.any_name: values for key, values in model(images).items()}
