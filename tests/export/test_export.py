"""Exported files compute what Keras computes, and are usable where this package is not installed."""

import ast
import json

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

import keras_resnet
from keras_resnet.data import constants
from keras_resnet.errors import UserError
from keras_resnet.export import verify
from keras_resnet.export.pipeline import export
from keras_resnet.nets.stock import stock
from tests.export.nets import CLASSES, another_classifier, make_net, run_snippets
from tests.helpers import random_images

FLOAT32 = ("model.keras", "saved_model", "model.onnx", "model.tflite")
PLAIN = {
    "Cast", "Mul", "Add", "Transpose", "Conv", "Relu", "MaxPool", "GlobalAveragePool", "Reshape",
    "MatMul", "Softmax", "ArgMax",
}  # fmt: skip


def probabilities_of(net, images):
    return net.predict(images.astype(np.float32), verbose=0)


def test_the_folder_is_complete(exported):
    _, folder, facts = exported
    assert {item.name for item in folder.iterdir()} == {
        *FLOAT32, "config.json", "metadata.json", "model.weights.h5", "model.int8.onnx",
        "model.int8.tflite", "web", "labels.txt", "MODEL_CARD.md", "README.md", "export.json",
    }  # fmt: skip
    assert (folder / "labels.txt").read_text().splitlines() == list(CLASSES)
    assert json.loads((folder / "export.json").read_text()) == json.loads(json.dumps(facts))
    assert not list(folder.parent.glob(".tmp-*"))
    for name in ("export.json", "README.md"):  # no folder of this machine
        text = (folder / name).read_text()
        assert str(folder.parent) not in text and "data_dir" not in text
    check = facts["verification"]
    assert (check["count"], check["batches"]) == (256, [1, 7, 256])
    for row in check["rows"]:  # random weights: int8 has many near ties
        float32 = "int8" not in row["file"]
        assert row["passed"] is (True if float32 else None) and row["agreement"] > 200
        assert row["difference"] < 1e-5 or not float32


def test_onnx_interface_and_metadata(exported):
    _, folder, facts = exported
    for name in ("model.onnx", "model.int8.onnx"):
        session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        interface = [
            (node.name, node.type, node.shape)
            for node in (*session.get_inputs(), *session.get_outputs())
        ]
        assert interface == [
            ("image", "tensor(uint8)", ["batch", 32, 32, 3]),
            ("probabilities", "tensor(float)", ["batch", 10]),
            ("class_id", "tensor(int64)", ["batch"]),
        ]
        values = session.get_modelmeta().custom_metadata_map
        assert ast.literal_eval(values["names"]) == dict(enumerate(CLASSES))
        assert ast.literal_eval(values["imgsz"]) == [32, 32]
        error = "12.34" if name == "model.onnx" else str(facts["test_error"]["int8"])
        expected = {"dataset": "synthetic", "depth": "8", "test_error": error, "task": "classify"}
        assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize("options", [{}, {"plain": True}, {"shortcut": "zeropad-maxpool"}])
def test_the_graph_is_of_plain_operators(exported, tmp_path, options):
    """No Pad, no Squeeze, batch normalization folded, no shapes that contradict a fixed batch."""
    file, opset = exported[1] / "model.onnx", 17
    if options:
        make_net(**options).save(tmp_path / "net.keras")
        export(tmp_path / "net.keras", formats=["onnx"], opset=(opset := 15))
        file = tmp_path / "net-export/model.onnx"
    model = onnx.load(file)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": opset}
    assert not model.graph.value_info
    kinds = [node.op_type for node in model.graph.node]
    assert set(kinds) <= PLAIN, set(kinds) - PLAIN
    # Behind a convolution, no addition of a constant: its batch normalization is its bias.
    constants_of_graph = {tensor.name for tensor in model.graph.initializer}
    outputs = {node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    for node in model.graph.node:
        if node.op_type in ("Mul", "Add"):
            assert not ({*node.input} & outputs and {*node.input} & constants_of_graph), node.name


def test_int8_runs_in_integers(exported, tmp_path):
    _, folder, facts = exported
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(
        folder / "model.int8.onnx", options, providers=["CPUExecutionProvider"]
    )
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    # A depth of 8 has 7 convolutions and 2 shortcuts; the input and the head are left in float.
    assert kinds.count("QLinearConv") == 9 and "Conv" not in kinds
    assert kinds.count("QLinearAdd") == 3 and "Relu" not in kinds and "Pad" not in kinds
    model = onnx.load(folder / "model.int8.onnx")
    assert not model.graph.value_info and model.opset_import[0].version == 21
    errors = {"keras", "int8", "int8_litert"}  # float32: measured when the run ended
    assert set(facts["test_error"]) == errors


def test_any_keras_classifier_is_exported(tmp_path, capsys):
    """With augmentation, nested layers and Normalization, of 24 x 40 pixels, to logits."""
    net = another_classifier()
    net.save(tmp_path / "other.keras")
    facts = export(tmp_path / "other.keras", formats=["saved_model", "onnx", "litert", "web"])
    assert "returns logits" in capsys.readouterr().out
    assert (facts["model"], facts["depth"], facts["dataset"]) == (None, None, None)
    folder = tmp_path / "other-export"
    images = np.random.default_rng(2).integers(0, 256, (7, 24, 40, 3), dtype=np.uint8)
    expected = keras.ops.softmax(net(images.astype(np.float32), training=False))
    for file in FLOAT32:
        found = verify.LOADERS[file](folder / file)(images)
        np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5, err_msg=file)
        assert file == "model.keras" or found["class_id"].dtype == np.int64
    inputs = onnx.load(folder / "model.onnx").graph.input
    assert [value.name for value in inputs] == ["image"]
    text = (folder / "README.md").read_text() + (folder / "web/index.html").read_text()
    assert "He et al" not in text and "24, 40, 3" in text
    assert (folder / "labels.txt").read_text().splitlines() == [f"class {k}" for k in range(5)]
    assert "not measured" in text and "license" not in text


def test_a_net_whose_logits_are_named_probabilities(tmp_path):
    image = keras.Input((8, 8, 3))
    logits = keras.layers.Dense(3, name="probabilities", bias_initializer="ones")
    net = keras.Model(image, logits(keras.layers.Flatten()(image)))
    net.save(tmp_path / "net.keras")
    export(tmp_path / "net.keras", formats=["onnx"], outputs=["logits", "class_id"])
    images = random_images(7, 8, 8)
    found = verify.LOADERS["model.onnx"](tmp_path / "net-export/model.onnx")(images)["logits"]
    np.testing.assert_allclose(found, probabilities_of(net, images), rtol=1e-5, atol=1e-4)


def test_a_sequential_net_in_bfloat16_that_is_called_image(tmp_path):
    """And formats as one word."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        body = [
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax", dtype="float32"),
        ]
        net = keras.Sequential([keras.Input((8, 8, 3)), *body], name="image")
    finally:
        keras.config.set_dtype_policy("float32")
    net.save(tmp_path / "net.keras")
    facts = export(tmp_path / "net.keras", formats="onnx")
    assert [row["file"] for row in facts["verification"]["rows"]] == ["model.keras", "model.onnx"]


def test_int8_of_a_net_of_other_images(tmp_path, small_synthetic):
    """Images that are not square, of an .npz file; a data set of another shape is one line."""
    another_classifier().save(tmp_path / "net.keras")
    images, labels = random_images(40, 24, 40), np.arange(40) % 5
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    options = {"formats": ["onnx"], "quantize": True}
    facts = export(tmp_path / "net.keras", dataset=str(tmp_path / "own.npz"), **options)
    assert {*facts["test_error"]} == {"onnx", "int8"}
    another_classifier(classes=10).save(tmp_path / "ten.keras")
    with pytest.raises(UserError, match=r"shape, \(24, 40, 3\). Received: synthetic, of \(32"):
        export(tmp_path / "ten.keras", dataset="synthetic", **options)


def test_the_data_set_and_the_names_of_a_file(tmp_path, small_synthetic, capsys):
    """Recognized by the normalization or given; of other classes, refused; names beside it come first."""
    file, names = tmp_path / "mine.keras", [f"kind {k}" for k in range(10)]
    make_net().save(file)
    facts = export(file, formats=["onnx"], dataset="synthetic", quantize=True)
    assert facts["class_names"] == list(CLASSES)
    assert set(facts["test_error"]) == {"onnx", "int8"}  # there is no run that measured it
    card = (tmp_path / "mine-export/MODEL_CARD.md").read_text()
    assert "How the net was chosen is not known" in card and "One run" not in card
    (tmp_path / "labels.txt").write_text("\n".join(names))
    facts = export(file, output=tmp_path / "2", formats=["onnx"])
    assert (facts["dataset"], facts["class_names"]) == ("synthetic", names)
    with pytest.raises(UserError, match="Received: 10: kind 0, kind 1, .* with `dataset`"):
        export(file, output=tmp_path / "3", formats=["onnx"], dataset="synthetic")
    assert not (tmp_path / "3").exists()
    (tmp_path / "labels.txt").unlink()
    mean, std = constants.NORMALIZATION["cifar100"]
    keras_resnet.resnet(8, mean=mean, std=std, num_classes=100).save(file)
    facts = export(file, formats=["onnx"], data_dir=str(tmp_path / "none"))
    assert facts["class_names"] == list(constants.CLASS_NAMES["cifar100"])  # its data is not here
    assert "class names: those of cifar100, whose mean" in capsys.readouterr().out


def test_each_snippet_of_the_card_runs_as_printed(exported, images, tmp_path):
    net, folder, _ = exported
    assert keras.models.load_model(folder).count_params() == stock(net).count_params()
    probabilities = probabilities_of(net, images)
    top, second = np.sort(probabilities)[:, [-1, -2]].T
    clear = (top - second).argmax()  # int8 may turn two classes that are close
    printed = run_snippets(folder, images[clear], tmp_path)
    assert set(printed) == {"Keras", "SavedModel", "ONNX", "LiteRT", "ONNX, int8", "LiteRT, int8"}
    expected = probabilities[clear]
    for heading, text in printed.items():
        label, probability = text.split()
        assert label == CLASSES[expected.argmax()], heading
        tolerance = 0.1 if "int8" in heading else 1e-4
        assert abs(float(probability) - expected.max()) < tolerance, heading


def test_card_has_model_index_front_matter(exported):
    _, folder, _ = exported
    card = (folder / "MODEL_CARD.md").read_text()
    assert (folder / "README.md").read_text() == card and "$" not in card
    lines = card.split("---\n")[1].splitlines()
    values = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in lines)}
    (entry,) = values["model-index"]
    assert entry["name"] == "resnet8" and entry["results"][0]["metrics"][0]["value"] == 0.8766
    assert "python train.py --depth 8 --dataset synthetic" in card and "12.34" in card
    assert values["license"] == "mit" and "One run. The test set was not used" in card


def test_only_an_export_is_replaced_and_what_is_gone_is_named(tmp_path, capsys):
    make_net().save(tmp_path / "net.keras")
    export(tmp_path / "net.keras", formats=["saved_model", "web"])
    assert "note:" not in capsys.readouterr().out
    for name in ("labels.txt", "MODEL_CARD.md"):
        file = tmp_path / "net-export" / name
        before = file.read_text()
        file.write_text("my own\n")
        with pytest.raises(UserError, match=rf"did not write \({name}, which was changed\)"):
            export(tmp_path / "net.keras", formats=["onnx"])
        file.write_text(before)
    for foreign in ("web/CNAME", "thesis.tex"):
        path = tmp_path / "net-export" / foreign
        path.write_text("mine")
        with pytest.raises(UserError, match=rf"did not write \({foreign}\)"):
            export(tmp_path / "net.keras", formats=["onnx"])
        assert path.read_text() == "mine"
        path.unlink()
    export(tmp_path / "net.keras", formats=["onnx"])
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("note:")]
    assert "replaced" in line and "saved_model, web are gone" in line and "onnx" not in line
    assert not (tmp_path / "net-export" / "saved_model").exists()


@pytest.mark.parametrize("batch", [7, None])
def test_a_wrong_file_fails_and_leaves_the_old_export(tmp_path, monkeypatch, batch):
    """Another class of one image in one batch size, or, for None, weights that are off by 1 %."""
    make_net().save(tmp_path / "net.keras")
    old = tmp_path / "net-export"
    old.mkdir()
    (old / "export.json").write_text('{"sha256": {}}')
    load = verify.LOADERS["model.onnx"]

    def load_wrong(path):
        if batch is None:
            model = onnx.load(path)
            kernel = next(t for t in model.graph.initializer if "head_dense" in t.name)
            values = onnx.numpy_helper.to_array(kernel) * np.float32(1.01)
            kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
            onnx.save(model, path)
        predict = load(path)

        def wrong(images):
            outputs = predict(images)
            outputs["class_id"] += (np.arange(len(images)) == 0) * (len(images) == batch)
            return outputs

        return wrong

    monkeypatch.setitem(verify.LOADERS, "model.onnx", load_wrong)
    with pytest.raises(UserError, match="model.onnx does not compute what Keras") as caught:
        export(tmp_path / "net.keras", formats=["onnx"])
    assert caught.value.exit_code == 4
    assert [item.name for item in old.iterdir()] == ["export.json"]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["net-export", "net.keras"]
