"""Other inputs, outputs and formats: each file computes what Keras computes, and its snippet runs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from keras_resnet.errors import UserError
from keras_resnet.export import verify
from keras_resnet.export.options import Options
from keras_resnet.export.pipeline import export
from keras_resnet.export.signature import in_batches
from tests.export.nets import CLASSES, another_classifier, make_net, python, run_snippets

# What of akamaster's resnet.py the snippet needs, with its names and its padding.
RESNET = """
import torch.nn as nn, torch.nn.functional as F
class BasicBlock(nn.Module):
    def __init__(self, before, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.pad = (planes - before) // 2
    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)) if self.pad else x
        return F.relu(out + x)
class ResNet(nn.Module):
    def __init__(self, block, num_blocks, num_classes=10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for k, count in enumerate(num_blocks):
            widths = [16 << max(k - 1, 0)] + [16 << k] * (count - 1)
            blocks = [block(w, 16 << k, 1 + (w < 16 << k)) for w in widths]
            setattr(self, f"layer{k + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, num_classes)
    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))
"""


@pytest.mark.parametrize(
    "options",
    [
        {"outputs": ["class_id", "logits", "features"], "input": "float32", "formats": ["onnx"]},
        {"layout": "nchw", "batch_size": 3, "outputs": ["probabilities"], "half": True},
        {"raw": True, "quantize": True, "dataset": "synthetic"},
    ],
    ids=["outputs", "fixed", "raw"],
)
def test_options_are_verified_and_their_snippets_run(
    tmp_path: Path, images: np.ndarray, small_synthetic: None, options: dict
) -> None:
    net = make_net()
    net.save(tmp_path / "net.keras")
    options = {"formats": ["saved_model", "onnx", "litert"], **options}
    facts = export(tmp_path / "net.keras", **options)
    wanted = Options(**{k: v for k, v in options.items() if k != "dataset"})
    folder, pixels = tmp_path / "net-export", images[:7].astype(np.float32)
    dense = keras.Model(net.input, net.get_layer("head_dense").output)
    features = keras.Model(net.input, net.get_layer("head_pool").output)
    expected = {
        "probabilities": net.predict(pixels, verbose=0),
        "logits": (logits := dense.predict(pixels, verbose=0)),
        "class_id": logits.argmax(axis=1),
        "features": features.predict(pixels, verbose=0),
    }
    files = [row["file"] for row in facts["verification"]["rows"]]
    for file in files[1:]:
        run = in_batches(verify.LOADERS[file](folder / file), wanted.batch_size)
        outputs = run(wanted.prepare(images[:7]))
        assert outputs.keys() == {*wanted.outputs}
        if "int8" not in file:
            for name, values in outputs.items():
                np.testing.assert_allclose(
                    values, expected[name], atol=0.03 if "fp16" in file else 1e-4
                )
    model = onnx.load(folder / "model.onnx")
    shape = [d.dim_value or d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    sides = (3, 32, 32) if wanted.layout == "nchw" else (32, 32, 3)
    assert shape == [wanted.batch_size or "batch", *sides]
    assert [output.name for output in model.graph.output] == list(wanted.outputs)
    if wanted.raw:  # nothing but the net, in the order of axes that converters expect
        assert {"Transpose", "Cast", "ArgMax", "Softmax"}.isdisjoint(
            {node.op_type for node in model.graph.node}
        )
    printed = run_snippets(folder, images[0], tmp_path)
    assert len(printed) == len(files)
    for file, text in printed.items():
        assert text.startswith(CLASSES[expected["class_id"][0]]) or "int8" in file, file


def test_the_weights_under_pytorchs_names(tmp_path: Path, images: np.ndarray) -> None:
    """Read back by `convert` in the verification; and by PyTorch, where it is installed."""
    net = make_net()
    net.save(tmp_path / "net.keras")
    facts = export(tmp_path / "net.keras", formats=["safetensors"])
    row = facts["verification"]["rows"][1]
    assert row["file"] == "model.safetensors" and row["difference"] < 1e-5
    if importlib.util.find_spec("torch"):
        (tmp_path / "resnet.py").write_text(RESNET)
        printed = run_snippets(tmp_path / "net-export", images[0], tmp_path)["PyTorch"].split()
        logits = keras.Model(net.input, net.get_layer("head_dense").output)
        values = logits.predict(images[:1].astype(np.float32), verbose=0)[0]
        assert printed[0] == CLASSES[values.argmax()]
        assert float(printed[1]) == pytest.approx(values.max(), abs=1e-4)
    make_net(shortcut="projection").save(tmp_path / "b.keras")
    with pytest.raises(UserError, match="with shortcut zeropad. Received: resnet, shortcut proj"):
        export(tmp_path / "b.keras", formats=["safetensors"])


def test_outputs_that_a_net_does_not_have(tmp_path: Path) -> None:
    inner = another_classifier(logits=False)
    image = keras.Input((24, 40, 3))
    keras.Model(image, inner(image)).save(tmp_path / "nested.keras")
    with pytest.raises(UserError, match="of probabilities, class_id: .* Received: logits"):
        export(tmp_path / "nested.keras", outputs=["logits"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["savedmodel"]}, "did you mean saved_model"),
        ({"formats": ["tflite"]}, "did you mean litert"),
        ({"formats": ["torchscript"]}, "did you mean safetensors"),
        ({"formats": ["coreml"]}, "must be of saved_model, onnx, .* Received: coreml$"),
        ({"outputs": ["logit"]}, "did you mean logits"),
        ({"layout": "chw"}, "did you mean nchw"),
        ({"raw": True, "outputs": ["features"]}, "`raw` fixes"),
        ({"formats": ["web"], "layout": "nchw"}, "the page needs"),
        ({"batch_size": 0}, "must be 1 or more. Received: 0"),
        ({"half": True, "formats": ["litert"]}, "add onnx"),
        ({"quantize": True, "outputs": ["features"]}, "add probabilities"),
    ],
    ids=str,
)
def test_options_that_do_not_go(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Options(**options)


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    """In two processes with other hashes; dates are those of SOURCE_DATE_EPOCH."""
    make_net().save(tmp_path / "net.keras")
    code = (
        "from keras_resnet.export.pipeline import export\n"
        "formats = ['onnx', 'litert', 'safetensors']\n"
        "export('net.keras', sys.argv[1], formats=formats, half=True, data_dir='none')"
    )
    repository = str(Path(__file__).resolve().parents[2])
    for k in ("1", "2"):
        done = python(
            code.replace("sys.argv[1]", repr(k)), tmp_path, PYTHONPATH=repository, PYTHONHASHSEED=k,
            SOURCE_DATE_EPOCH="1700000000",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / k / "export.json").read_text()) for k in ("1", "2"))
    assert first == second and len(first["sha256"]) == 11
    assert "2023-11-14" in (tmp_path / "1/metadata.json").read_text()
