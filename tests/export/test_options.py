"""Other inputs, outputs and formats: each file computes what Keras computes, and its snippet runs."""

import importlib.util
import json

import keras
import numpy as np
import onnx
import pytest

from keras_resnet.errors import UserError
from keras_resnet.export import verify
from keras_resnet.export.options import Options
from keras_resnet.export.pipeline import export
from keras_resnet.export.signature import in_batches
from keras_resnet.inference.open import load_keras
from tests.export.nets import CLASSES, another_classifier, make_net, run_snippets
from tests.helpers import REPOSITORY, call, logits_of, python

# What of akamaster's resnet.py the snippet needs, with its names and its padding.
RESNET = f"""
import sys
sys.path.append({str(REPOSITORY)!r})
from tests.golden.make_golden import Block as BasicBlock, Net, functional
class ResNet(Net):
    def __init__(self, block, num_blocks, num_classes=10):
        super().__init__(6 * num_blocks[0] + 2, "zeropad", "split", num_classes)
    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))
"""


@pytest.mark.parametrize(
    "options",
    [
        {"outputs": ["class_id", "logits", "features"], "input": "float32", "formats": ["onnx"]},
        {"layout": "nchw", "batch_size": 3, "outputs": ["probabilities"], "half": True},
        {"raw": True, "quantize": True, "dataset": "synthetic"},
        {"layout": "nchw", "outputs": ["class_id", "features"], "formats": ["openvino"]},
    ],
    ids=["outputs", "fixed", "raw", "openvino"],
)
def test_options_are_verified_and_their_snippets_run(tmp_path, images, small_synthetic, options):
    if "openvino" in options.get("formats", ()):
        pytest.importorskip("openvino")
    net = make_net()
    net.save(tmp_path / "net.keras")
    options = {"formats": ["saved_model", "onnx", "litert"], **options}
    facts = export(tmp_path / "net.keras", **options)
    wanted = Options(**{k: v for k, v in options.items() if k != "dataset"})
    folder, pixels = tmp_path / "net-export", images[:7].astype(np.float32)
    features = keras.Model(net.input, net.get_layer("head_pool").output)
    expected = {
        "probabilities": net.predict(pixels, verbose=0),
        "logits": (logits := logits_of(net).predict(pixels, verbose=0)),
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


def test_the_weights_under_pytorchs_names(tmp_path, images, monkeypatch):
    """Read back by `convert` in the verification; and by PyTorch, where it is installed."""
    net = make_net()
    for layer in net.layers:  # as training with --freeze leaves it
        layer.trainable = layer.name == "head_dense"
    net.save(tmp_path / "net.keras")
    facts = export(tmp_path / "net.keras", formats=["safetensors"])
    make_net(input_shape=(16, 24, 3)).save(tmp_path / "wide.keras")
    # The file says how its shortcuts pad, so that no images are needed to find out.
    safetensors, back = tmp_path / "net-export/model.safetensors", tmp_path / "back.keras"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert call("convert", safetensors, "--output", back) == 0
    expected = net.predict(images, verbose=0)
    np.testing.assert_allclose(load_keras(back).predict(images, verbose=0), expected, atol=1e-5)
    (_, other) = export(tmp_path / "wide.keras", formats=["safetensors"])["verification"]["rows"]
    assert other["difference"] < 1e-5
    row = facts["verification"]["rows"][1]
    assert row["file"] == "model.safetensors" and row["difference"] < 1e-5
    modes = {path.suffix: path.stat().st_mode for path in (tmp_path / "net-export").iterdir()}
    assert modes[".safetensors"] == modes[".md"]
    if importlib.util.find_spec("torch"):
        (tmp_path / "resnet.py").write_text(RESNET)
        printed = run_snippets(tmp_path / "net-export", images[0], tmp_path)["PyTorch"].split()
        values = logits_of(net).predict(images[:1].astype(np.float32), verbose=0)[0]
        assert printed[0] == CLASSES[values.argmax()]
        assert float(printed[1]) == pytest.approx(values.max(), abs=1e-4)
    make_net(shortcut="projection").save(tmp_path / "b.keras")
    with pytest.raises(UserError, match="with shortcut zeropad. Received: resnet, shortcut proj"):
        export(tmp_path / "b.keras", formats=["safetensors"])


def test_outputs_that_a_net_does_not_have(tmp_path):
    inner = another_classifier(logits=False)
    image = keras.Input((24, 40, 3))
    keras.Model(image, inner(image)).save(tmp_path / "nested.keras")
    with pytest.raises(UserError, match="of probabilities, class_id: .* Received: logits"):
        export(tmp_path / "nested.keras", outputs=["logits"])


def test_options_that_do_not_go(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "openvino" or None)
    for options, message in (
        ({"formats": ["tflite"]}, "did you mean litert"),
        ({"formats": ["coreml"]}, "must be of saved_model, onnx, .* Received: coreml$"),
        ({"formats": ["openvino"]}, r"openvino needs .*pip install openvino, .*\[openvino\]'$"),
        ({"raw": True, "outputs": ["features"]}, "`raw` fixes"),
        ({"formats": ["web"], "layout": "nchw"}, "the page needs"),
        ({"batch_size": 0}, "must be 1 or more. Received: 0"),
        ({"half": True, "formats": ["litert"]}, "add onnx"),
        ({"quantize": True, "outputs": ["features"]}, "add probabilities"),
        ({"quantize": True, "formats": ["safetensors"]}, "add onnx or litert"),
    ):
        with pytest.raises(UserError, match=message):
            Options(**options)


def test_the_same_command_gives_the_same_bytes(tmp_path):
    """In two processes with other hashes; dates are those of SOURCE_DATE_EPOCH."""
    openvino = importlib.util.find_spec("openvino") is not None
    make_net().save(tmp_path / "net.keras")
    words = [REPOSITORY / "export.py", "net.keras", "--formats", "onnx", "litert", "safetensors"]
    words += ["openvino"] * openvino
    words += ["--half", "--data-dir", "none", "--output"]
    for k in ("1", "2"):
        variables = {"PYTHONHASHSEED": k, "SOURCE_DATE_EPOCH": "1700000000"}
        done = python(*words, k, cwd=tmp_path, **variables)
        assert done.returncode == 0, done.stderr
        assert "256/256" in done.stdout and "on 256 synthetic images" in done.stdout, done.stdout
    first, second = (json.loads((tmp_path / k / "export.json").read_text()) for k in ("1", "2"))
    assert first == second and len(first["sha256"]) == 11 + 2 * openvino
    assert "2023-11-14" in (tmp_path / "1/metadata.json").read_text()
    wrong = python(*words, "3", cwd=tmp_path, SOURCE_DATE_EPOCH="1e9")
    assert wrong.returncode == 2 and "SOURCE_DATE_EPOCH must be a number" in wrong.stderr
    assert not (tmp_path / "3").exists()
