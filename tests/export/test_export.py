"""Exported files compute what Keras computes, and are usable where this package is not installed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import PIL.Image
import pytest

import keras_resnet
from keras_resnet.data import constants, synthetic
from keras_resnet.errors import UserError
from keras_resnet.export import onnx_file, pipeline, verify
from keras_resnet.export.pipeline import export
from tests.export.nets import CLASSES, EVERYTHING, another_classifier, make_net, make_run, python


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return synthetic.synthetic((16, 64), seed=5).test_images


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """One export of everything: the net, its folder, and what export() returned."""
    patch = pytest.MonkeyPatch()
    patch.setattr(synthetic, "SYNTHETIC_SIZES", (1_000, 300))
    net = make_net()
    run = make_run(tmp_path_factory.mktemp("runs") / "resnet8" / "seed-3", net)
    facts = export(run, formats=("saved_model", "onnx", "litert", "web"), quantize=True)
    patch.undo()
    return net, run / "export", facts


def probabilities_of(net: keras.Model, images: np.ndarray) -> np.ndarray:
    return net.predict(images.astype(np.float32), verbose=0)


# --- what is in the folder ---


def test_the_folder_is_complete(exported) -> None:
    _, folder, facts = exported
    assert {item.name for item in folder.iterdir()} == EVERYTHING
    assert (folder / "labels.txt").read_text().splitlines() == list(CLASSES)
    assert json.loads((folder / "export.json").read_text()) == json.loads(json.dumps(facts))
    assert not list(folder.parent.glob(".tmp-*"))
    for name in ("export.json", "README.md"):  # no folder of this machine
        text = (folder / name).read_text()
        assert str(folder.parent) not in text and "data_dir" not in text


def test_verification_is_recorded_and_passes(exported) -> None:
    check = exported[2]["verification"]
    assert (check["count"], check["batches"]) == (256, [1, 7, 256])
    rows = {row["file"]: row for row in check["rows"]}
    float32 = ("model.keras", "saved_model", "model.onnx", "model.tflite")
    assert set(rows) == {*float32, "model.int8.onnx"}
    for name in float32:
        assert rows[name]["passed"] and rows[name]["difference"] < 1e-5
        assert rows[name]["agreement"] == 256
    assert rows["model.int8.onnx"]["passed"] is None
    assert rows["model.int8.onnx"]["agreement"] > 200  # random weights: many near ties


@pytest.mark.parametrize("file", ["model.keras", "saved_model", "model.onnx", "model.tflite"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_each_file_computes_what_the_trained_net_computes(exported, images, file, batch) -> None:
    net, folder, _ = exported
    probabilities, class_id = verify.LOADERS[file](folder / file)(images[:batch])
    assert probabilities.dtype == np.float32 and class_id.dtype == np.int64
    expected = probabilities_of(net, images[:batch])
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(class_id, expected.argmax(axis=-1))


def test_the_signature_of_the_saved_model(exported) -> None:
    code = (
        "import tensorflow as tf\n"
        "serve = tf.saved_model.load('export/saved_model').signatures['serving_default']\n"
        "(name, spec), = serve.structured_input_signature[1].items()\n"
        "print(name, spec.dtype.name, spec.shape.as_list(), sorted(serve.structured_outputs))\n"
    )
    done = python(code, exported[1].parent, "keras_resnet", "keras")
    assert done.stdout == "image uint8 [None, 32, 32, 3] ['class_id', 'probabilities']\n", (
        done.stderr
    )


def test_keras_opens_the_export_folder_without_this_package(exported) -> None:
    _, folder, _ = exported
    code = "import keras\nprint(keras.models.load_model('.').count_params())"
    done = python(code, folder, "keras_resnet")
    assert done.stdout == f"{keras.models.load_model(folder).count_params()}\n", done.stderr


# --- ONNX ---


def test_onnx_interface_and_metadata(exported) -> None:
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
        expected = {
            "dataset": "synthetic", "depth": "8", "shortcut": "zeropad", "test_error": error,
            "version": keras_resnet.__version__, "git_commit": "abc", "model": "resnet",
            "task": "classify",
        }  # fmt: skip
        assert {key: values[key] for key in expected} == expected
        assert ("quantization" in values) == (name == "model.int8.onnx")


def test_onnx_is_what_most_programs_read(exported) -> None:
    """A valid graph of opset 17 whose nodes have the names of layers."""
    net, folder, _ = exported
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17}
    convs = {layer.name for layer in net.layers if isinstance(layer, keras.layers.Conv2D)}
    convs |= {"stage2_block1_shortcut", "stage3_block1_shortcut"}
    assert {node.name for node in model.graph.node if node.op_type == "Conv"} == convs
    names = [node.name for node in model.graph.node]
    assert not [name for name in names if name.startswith(("serving", "Conv__"))]
    kinds = {node.op_type for node in model.graph.node}
    assert kinds.isdisjoint({"Pad", "Squeeze", "AveragePool", "BatchNormalization"})
    int8 = onnx.load(folder / "model.int8.onnx")
    assert {node.name for node in int8.graph.node if node.op_type == "Conv"} == convs
    # tract fixes the batch in the input; inner shapes with a symbolic batch would contradict it.
    assert not model.graph.value_info and not int8.graph.value_info


@pytest.mark.parametrize(
    "options",
    [{"plain": True}, {"shortcut": "projection-all"}, {"shortcut": "zeropad-maxpool"}],
    ids=str,
)
def test_batch_normalization_is_folded(tmp_path: Path, options: dict) -> None:
    make_net(**options).save(tmp_path / "net.keras")
    export(tmp_path / "net.keras", formats=["onnx"], opset=15)
    model = onnx.load(tmp_path / "net-export" / "model.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 15}
    nodes = model.graph.node
    assert {node.op_type for node in nodes} <= {
        "Cast", "Mul", "Add", "Transpose", "Conv", "Relu", "MaxPool", "GlobalAveragePool", "Flatten",
        "Reshape", "MatMul", "Gemm", "Softmax", "ArgMax", "ReduceMean", "Pad",
    }  # fmt: skip
    constants_of_graph = {tensor.name for tensor in model.graph.initializer}
    from_conv = {name for node in nodes if node.op_type == "Conv" for name in node.output}
    for node in nodes:
        if node.op_type in ("Mul", "Add", "Sub", "Div"):
            folded = not (set(node.input) & from_conv and set(node.input) & constants_of_graph)
            assert folded, f"{node.op_type} with a constant directly behind a Conv: {node.name}"


def test_int8_runs_in_integers(exported, tmp_path: Path) -> None:
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
    # float32 was measured when the run ended.
    assert set(facts["test_error"]) == {"keras", "int8"}


# --- other nets ---


def test_mixed_precision_is_exported_as_float32(tmp_path: Path, images) -> None:
    net = make_net(dtype="mixed_bfloat16")
    net.save(tmp_path / "net.keras")
    export(tmp_path / "net.keras", formats=["onnx"])
    probabilities, _ = onnx_file.load(tmp_path / "net-export" / "model.onnx")(images)
    float32 = make_net(dtype="float32")
    float32.set_weights(net.get_weights())
    np.testing.assert_allclose(probabilities, probabilities_of(float32, images), atol=1e-5)
    mixed = probabilities_of(net, images)
    assert abs(probabilities - mixed).max() > 1e-4  # else the test would prove nothing


@pytest.mark.parametrize("logits", [False, True])
def test_any_keras_classifier_is_exported(tmp_path: Path, logits: bool, capsys) -> None:
    """With augmentation, nested layers and Normalization, of 24 x 40 pixels."""
    net = another_classifier(logits)
    net.save(tmp_path / "other.keras")
    facts = export(tmp_path / "other.keras", formats=["saved_model", "onnx", "litert", "web"])
    assert ("returns logits" in capsys.readouterr().out) == logits
    assert (facts["model"], facts["depth"], facts["dataset"]) == (None, None, None)
    folder = tmp_path / "other-export"
    images = np.random.default_rng(2).integers(0, 256, (7, 24, 40, 3), dtype=np.uint8)
    expected = np.asarray(net(images.astype(np.float32), training=False))
    if logits:
        expected = np.exp(expected) / np.exp(expected).sum(axis=-1, keepdims=True)
    for file in ("model.keras", "saved_model", "model.onnx", "model.tflite"):
        found, _ = verify.LOADERS[file](folder / file)(images)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=file)
    inputs = onnx.load(folder / "model.onnx").graph.input
    assert [value.name for value in inputs] == ["image"]
    text = (folder / "README.md").read_text() + (folder / "web/index.html").read_text()
    assert "He et al" not in text and "24, 40, 3" in text


@pytest.mark.parametrize("shape", [(32, 32, 1), (None, None, 3)])
def test_a_net_of_other_images_is_refused(tmp_path: Path, shape) -> None:
    image = keras.Input(shape)
    x = keras.layers.GlobalAveragePooling2D()(image)
    keras.Model(image, keras.layers.Dense(3)(x)).save(tmp_path / "net.keras")
    with pytest.raises(UserError, match="must take RGB images"):
        export(tmp_path / "net.keras")


def test_the_data_set_of_a_file_is_recognized_by_its_normalization(tmp_path: Path) -> None:
    make_net().save(tmp_path / "mine.keras")
    facts = export(tmp_path / "mine.keras", formats=["onnx"])
    assert facts["dataset"] == "synthetic" and facts["test_error"] == {}
    assert facts["class_names"] == list(CLASSES)
    keras_resnet.resnet(8, mean=(1, 2, 3), std=(4, 5, 6), num_classes=3).save(tmp_path / "x.keras")
    facts = export(tmp_path / "x.keras", output=tmp_path / "out", formats=["onnx"])
    assert facts["dataset"] is None
    assert (tmp_path / "out" / "labels.txt").read_text() == "class 0\nclass 1\nclass 2\n"
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "not measured" in card and "license" not in card


def test_a_data_set_of_other_classes_is_refused(tmp_path: Path, small_synthetic: None) -> None:
    with pytest.raises(UserError, match=r"classes must be those of synthetic \(10: .* Received: 3"):
        keras_resnet.resnet(8, num_classes=3).save(tmp_path / "x.keras")
        export(tmp_path / "x.keras", formats=["onnx"], dataset="synthetic")
    (tmp_path / "labels.txt").write_text("".join(f"kind {k}\n" for k in range(10)))
    make_net().save(tmp_path / "y.keras")
    with pytest.raises(UserError, match="Received: 10: kind 0, kind 1, .* with `dataset`"):
        export(tmp_path / "y.keras", formats=["onnx"], dataset="synthetic")
    assert not (tmp_path / "y-export").exists()
    (tmp_path / "labels.txt").unlink()
    facts = export(tmp_path / "y.keras", dataset="synthetic", formats=["onnx"], quantize=True)
    assert facts["dataset"] == "synthetic" and set(facts["test_error"]) == {"onnx", "int8"}
    card = (tmp_path / "y-export/MODEL_CARD.md").read_text()
    assert "How the net was chosen is not known" in card and "One run" not in card


def test_names_beside_a_file_are_exported(tmp_path: Path) -> None:
    make_net().save(tmp_path / "mine.keras")
    names = [f"kind {k}" for k in range(10)]
    (tmp_path / "labels.txt").write_text("\n".join(names))
    assert export(tmp_path / "mine.keras", formats=["onnx"])["class_names"] == names
    again = export(tmp_path / "mine-export/model.keras", output=tmp_path / "2", formats=["onnx"])
    assert again["class_names"] == names


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_names_are_those_of_a_data_set_that_is_not_here(tmp_path: Path, dataset: str) -> None:
    mean, std = constants.NORMALIZATION[dataset]
    names = list(constants.CLASS_NAMES[dataset])
    net = keras_resnet.resnet(8, mean=mean, std=std, num_classes=len(names))
    net.save(tmp_path / "net.keras")
    facts = export(tmp_path / "net.keras", formats=["onnx"], data_dir=str(tmp_path / "none"))
    assert facts["class_names"] == names


# --- the card ---


def snippets(card: str) -> dict[str, str]:
    """The Python snippets of a card, by their heading."""
    found = {}
    for section in card.split("\n### ")[1:]:
        heading, _, rest = section.partition("\n")
        found[heading] = rest.partition("```python\n")[2].partition("```")[0]
    return found


def test_each_snippet_of_the_card_runs_as_printed(exported, images, tmp_path: Path) -> None:
    net, folder, _ = exported
    card = (folder / "MODEL_CARD.md").read_text()
    found = snippets(card)
    assert set(found) == {"Keras", "SavedModel", "ONNX", "LiteRT", "ONNX, int8"}
    assert card.count("```python") == len(found)
    for item in folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
    PIL.Image.fromarray(images[0]).save(tmp_path / "image.png")
    expected = probabilities_of(net, images[:1])[0]
    for heading, code in found.items():
        absent = ["keras_resnet"] if heading == "Keras" else ["keras_resnet", "keras"]
        absent += ["tensorflow", "tf2onnx", "onnx"] if "ONNX" in heading else []
        done = python(code, tmp_path, *absent)
        assert done.returncode == 0, f"{heading}: {done.stderr}"
        label, probability = done.stdout.split()
        assert label == CLASSES[expected.argmax()], heading
        tolerance = 0.1 if "int8" in heading else 1e-4
        assert abs(float(probability) - expected.max()) < tolerance, heading


def test_card_has_model_index_front_matter(exported) -> None:
    _, folder, _ = exported
    card = (folder / "MODEL_CARD.md").read_text()
    assert (folder / "README.md").read_text() == card
    lines = card.split("---\n")[1].splitlines()
    values = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in lines)}
    (entry,) = values["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "resnet8" and result["task"]["type"] == "image-classification"
    assert result["dataset"]["name"] == "synthetic"
    assert result["metrics"][0] == {
        "type": "accuracy", "value": 0.8766, "name": "Accuracy, Keras float32",
    }  # fmt: skip
    assert "python train.py --depth 8 --dataset synthetic" in card and "12.34" in card
    assert values["license"] == "mit" and "One run. The test set was not used" in card


# --- a file that is wrong ---


@pytest.mark.parametrize("batch", verify.BATCHES)
def test_another_class_in_any_batch_fails_and_leaves_the_old_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    make_net().save(tmp_path / "net.keras")
    export(tmp_path / "net.keras", formats=["onnx"])
    before = (tmp_path / "net-export/export.json").read_bytes()
    load = onnx_file.load

    def load_wrong(path: Path):
        predict = load(path)

        def wrong(images):
            probabilities, class_id = predict(images)
            return probabilities, class_id + (np.arange(len(images)) == 0) * (len(images) == batch)

        return wrong

    monkeypatch.setitem(verify.LOADERS, "model.onnx", load_wrong)
    with pytest.raises(UserError, match="model.onnx does not compute what Keras") as caught:
        export(tmp_path / "net.keras", formats=["onnx"])
    assert caught.value.exit_code == 4
    assert (tmp_path / "net-export/export.json").read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["net-export", "net.keras"]


def test_wrong_weights_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_net().save(tmp_path / "net.keras")
    write = onnx_file.write

    def write_wrong(serving: keras.Model, path: Path, *rest) -> None:
        write(serving, path, *rest)
        model = onnx.load(path)
        kernel = next(t for t in model.graph.initializer if "head_dense" in t.name)
        values = onnx.numpy_helper.to_array(kernel) * np.float32(1.01)
        kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
        onnx.save(model, path)

    monkeypatch.setattr(pipeline.onnx_file, "write", write_wrong)
    with pytest.raises(UserError, match="does not compute what Keras computes"):
        export(tmp_path / "net.keras", formats=["onnx"])
    assert not (tmp_path / "net-export").exists()
