"""Exported files compute what Keras computes, say what they are, and need nothing of ours."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
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
from keras_resnet.export import formats, litert, verify
from keras_resnet.export.pipeline import _WRITTEN, export
from keras_resnet.inference.open import load_keras
from keras_resnet.nets.describe import describe
from keras_resnet.nets.stock import stock
from keras_resnet.runs import staged

REPOSITORY = Path(__file__).resolve().parents[2]
SYNTHETIC_MEAN, SYNTHETIC_STD = constants.NORMALIZATION["synthetic"]


def make_net(**options) -> keras.Model:
    """A net whose BN statistics and biases are such as training leaves them: all different."""
    build = keras_resnet.plain if options.pop("plain", False) else keras_resnet.resnet
    net = build(options.pop("depth", 8), mean=SYNTHETIC_MEAN, std=SYNTHETIC_STD, **options)
    rng = np.random.default_rng(1)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (w.shape for w in layer.weights)
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, gamma),
                    rng.normal(0, 0.3, beta),
                    rng.normal(0, 0.3, mean),
                    rng.uniform(0.5, 2, variance),
                ]
            )
    kernel, bias = net.get_layer("head_dense").get_weights()
    net.get_layer("head_dense").set_weights([kernel, rng.normal(0, 0.3, bias.shape)])
    return net


def make_run(folder: Path, net: keras.Model) -> Path:
    """A finished run folder on the synthetic data set."""
    folder.mkdir(parents=True)
    net.save(folder / "model.keras")
    settings = {"dataset": "synthetic", "depth": 8, "seed": 3, "steps": 100, "data_dir": None}
    config = {
        "settings": settings,
        "class_names": list(constants.SYNTHETIC_CLASSES),
        "precision": "float32",
        "command": "python train.py --depth 8 --dataset synthetic",
        "versions": {"keras": "3"},
        "device": {"kind": "CPU", "name": "test"},
        "git_commit": "abc",
    }
    (folder / "config.json").write_text(json.dumps(config))
    results = {"test_error": 12.34, "seconds": 7.0, "git_commit": "abc", "steps": 100}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


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
    facts = export(run, kinds=("saved_model", "onnx", "litert", "web"), quantize=True)
    patch.undo()
    return net, run / "export", facts


def python(
    code: str, folder: Path, *absent: str, **environment: str
) -> subprocess.CompletedProcess:
    """Run code in a process of its own, in which the modules `absent` cannot be imported."""
    hide = "".join(f"sys.modules[{name!r}] = None; " for name in absent)
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {hide}\n{code}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", "PYTHONWARNINGS": "ignore", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


# --- what is in the folder ---------------------------------------------


def test_the_folder_is_complete(exported) -> None:
    _, folder, facts = exported
    assert {item.name for item in folder.iterdir()} == _WRITTEN
    assert (folder / "labels.txt").read_text().splitlines() == list(constants.SYNTHETIC_CLASSES)
    assert json.loads((folder / "export.json").read_text()) == json.loads(json.dumps(facts))
    assert not list(folder.parent.glob(".tmp-*"))


def test_verification_is_recorded_and_passes(exported) -> None:
    _, _, facts = exported
    check = facts["verification"]
    assert (check["count"], check["batches"]) == (256, [1, 7, 256])
    rows = {row["file"]: row for row in check["rows"]}
    assert list(rows) == ["saved_model", "model.onnx", "model.tflite", "model.int8.onnx"]
    for name in ("saved_model", "model.onnx", "model.tflite"):
        assert rows[name]["passed"] and rows[name]["difference"] < 1e-5
        assert rows[name]["agreement"] == 256
    assert rows["model.int8.onnx"]["passed"] is None
    assert rows["model.int8.onnx"]["agreement"] > 200  # random weights: many near ties


@pytest.mark.parametrize("kind", ["saved_model", "onnx", "litert"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_each_format_computes_what_keras_computes(exported, images, kind: str, batch: int) -> None:
    net, folder, _ = exported
    run = formats.runner(kind, folder / formats.FILES[kind])
    probabilities, class_id = run(images[:batch])
    assert probabilities.dtype == np.float32 and class_id.dtype == np.int64
    expected = net.predict(images[:batch].astype(np.float32), verbose=0)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(class_id, expected.argmax(axis=-1))


def test_saved_model_needs_nothing_of_ours(exported, images) -> None:
    net, folder, _ = exported
    np.save(folder.parent / "images.npy", images)
    code = (
        "import numpy as np, tensorflow as tf\n"
        "serve = tf.saved_model.load('export/saved_model').signatures['serving_default']\n"
        "(name, spec), = serve.structured_input_signature[1].items()\n"
        "assert name == 'image' and spec.dtype == tf.uint8 and spec.shape.as_list() == "
        "[None, 32, 32, 3], (name, spec)\n"
        "outputs = serve(image=tf.constant(np.load('images.npy')))\n"
        "assert set(outputs) == {'probabilities', 'class_id'} and 'keras_resnet' not in "
        "{m for m, v in sys.modules.items() if v}\n"
        "np.save('served.npy', outputs['probabilities'].numpy())\n"
    )
    done = python(code, folder.parent, "keras_resnet", "keras")
    assert done.returncode == 0, done.stderr
    expected = net.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(np.load(folder.parent / "served.npy"), expected, atol=1e-5)


# --- ONNX ---


def test_onnx_interface_and_metadata(exported) -> None:
    _, folder, _ = exported
    for name in ("model.onnx", "model.int8.onnx"):
        session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        assert (given.name, given.type, given.shape) == (
            "image", "tensor(uint8)", ["batch", 32, 32, 3],
        )  # fmt: skip
        outputs = [(o.name, o.type, o.shape) for o in session.get_outputs()]
        assert outputs == [
            ("probabilities", "tensor(float)", ["batch", 10]),
            ("class_id", "tensor(int64)", ["batch"]),
        ]
        values = session.get_modelmeta().custom_metadata_map
        assert ast.literal_eval(values["names"]) == dict(enumerate(constants.SYNTHETIC_CLASSES))
        assert ast.literal_eval(values["imgsz"]) == [32, 32]
        assert values["task"] == "classify"
        int8 = json.loads((folder / "export.json").read_text())["test_error"]["int8"]
        error = "12.34" if name == "model.onnx" else str(int8)  # each file says its own
        expected = {
            "dataset": "synthetic", "depth": "8", "shortcut": "zeropad", "test_error": error,
            "version": keras_resnet.__version__, "git_commit": "abc", "model": "resnet",
        }  # fmt: skip
        assert {key: values[key] for key in expected} == expected
        assert ("quantization" in values) == (name == "model.int8.onnx")


def test_onnx_is_valid_and_of_the_opset_that_most_programs_read(exported) -> None:
    _, folder, _ = exported
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17}


def test_onnx_nodes_have_the_names_of_layers(exported) -> None:
    net, folder, _ = exported
    nodes = {node.name: node for node in onnx.load(folder / "model.onnx").graph.node}
    convs = {layer.name for layer in net.layers if isinstance(layer, keras.layers.Conv2D)}
    assert convs == {name for name, node in nodes.items() if node.op_type == "Conv"}
    assert not [name for name in nodes if name.startswith("serving") or name.startswith("Conv__")]
    assert "AveragePool" not in {node.op_type for node in nodes.values()}
    int8 = onnx.load(folder / "model.int8.onnx")
    quantized = {name for node in int8.graph.node if node.op_type == "Conv" for name in [node.name]}
    assert quantized == convs


def test_onnx_keeps_no_shapes_that_hinder_a_fixed_batch(exported) -> None:
    """tract fixes the batch in the input; inner shapes with a symbolic batch then contradict it."""
    assert not onnx.load(exported[1] / "model.onnx").graph.value_info


def test_keras_opens_the_export_folder(exported) -> None:
    net, folder, _ = exported
    again = keras.models.load_model(folder)
    for one, other in zip(net.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_export_names_no_folder_of_this_machine(exported) -> None:
    _, folder, _ = exported
    for name in ("export.json", "README.md"):
        text = (folder / name).read_text()
        assert str(folder.parent) not in text and "data_dir" not in text


@pytest.mark.parametrize(
    "options",
    [{"plain": True}, {"shortcut": "projection-all"}, {"shortcut": "zeropad-maxpool"}, {}],
    ids=str,
)
def test_batch_normalization_is_folded(tmp_path: Path, options: dict) -> None:
    net = make_net(**options)
    net.save(tmp_path / "net.keras")
    export(tmp_path / "net.keras", kinds=["onnx"], opset=15)
    model = onnx.load(tmp_path / "net-export" / "model.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 15
    nodes = model.graph.node
    kinds = {node.op_type for node in nodes}
    assert kinds <= {
        "Cast", "Mul", "Add", "Transpose", "Conv", "Relu", "AveragePool", "MaxPool", "Pad",
        "ReduceMean", "GlobalAveragePool", "Squeeze", "MatMul", "Gemm", "Softmax", "ArgMax",
    }  # fmt: skip
    constants = {tensor.name for tensor in model.graph.initializer}
    from_conv = {name for node in nodes if node.op_type == "Conv" for name in node.output}
    convs = [node for node in nodes if node.op_type == "Conv"]
    layers = [layer for layer in net.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convs) == len(layers)
    assert all(len(node.input) == 3 for node in convs)  # each with a bias
    for node in nodes:
        if node.op_type in ("Mul", "Add", "Sub", "Div"):
            folded = not (set(node.input) & from_conv and set(node.input) & constants)
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
    # A depth of 8 has 7 convolutions; what is left in float is the input, the head and two Pads.
    assert kinds.count("QLinearConv") == 7 and "Conv" not in kinds
    assert kinds.count("QLinearAdd") == 3 and "Relu" not in kinds
    # float32 was measured when the run ended; the file was just proven to compute the same.
    assert set(facts["test_error"]) == {"keras", "int8"}


# --- other nets ---------------------------------------------


def test_mixed_precision_is_exported_as_float32(tmp_path: Path, images) -> None:
    net = make_net(dtype="mixed_bfloat16")
    net.save(tmp_path / "net.keras")
    export(tmp_path / "net.keras", kinds=["onnx"])
    probabilities, _ = formats.runner("onnx", tmp_path / "net-export" / "model.onnx")(images)
    float32 = make_net(dtype="float32")
    float32.set_weights(net.get_weights())
    exact = float32.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(probabilities, exact, atol=1e-5)
    mixed = net.predict(images.astype(np.float32), verbose=0)
    assert abs(probabilities - mixed).max() > 1e-4  # else the test would prove nothing


def test_bare_file_is_recognized_by_its_normalization(tmp_path: Path) -> None:
    make_net().save(tmp_path / "mine.keras")
    facts = export(tmp_path / "mine.keras", kinds=["onnx"])
    assert facts["dataset"] == "synthetic" and facts["test_error"] == {}
    assert facts["class_names"] == list(constants.SYNTHETIC_CLASSES)
    keras_resnet.resnet(8, mean=(1, 2, 3), std=(4, 5, 6), num_classes=3).save(tmp_path / "x.keras")
    facts = export(tmp_path / "x.keras", output=tmp_path / "out", kinds=["onnx"])
    assert facts["dataset"] is None
    keras_resnet.resnet(8, num_classes=3).save(tmp_path / "y.keras")  # CIFAR-10's are the default
    assert export(tmp_path / "y.keras", output=tmp_path / "y", kinds=["onnx"])["dataset"] is None
    assert (tmp_path / "out" / "labels.txt").read_text() == "class 0\nclass 1\nclass 2\n"
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "not measured" in card and "license" not in card


def test_a_data_set_of_other_classes_is_refused(
    exported, tmp_path: Path, small_synthetic: None
) -> None:
    _, folder, _ = exported
    with pytest.raises(UserError, match=r"classes must be those of synthetic \(10: .* Received: 3"):
        keras_resnet.resnet(8, num_classes=3).save(tmp_path / "x.keras")
        export(tmp_path / "x.keras", kinds=["onnx"], dataset="synthetic")
    (tmp_path / "labels.txt").write_text("".join(f"kind {k}\n" for k in range(10)))
    make_net().save(tmp_path / "y.keras")
    with pytest.raises(UserError, match="Received: 10: kind 0, kind 1, .* with `dataset`"):
        export(tmp_path / "y.keras", kinds=["onnx"], dataset="synthetic")
    assert not (tmp_path / "y-export").exists()
    (tmp_path / "labels.txt").unlink()
    facts = export(tmp_path / "y.keras", dataset="synthetic", kinds=["onnx"], quantize=True)
    assert facts["dataset"] == "synthetic" and facts["test_error"]
    card = (tmp_path / "y-export/MODEL_CARD.md").read_text()
    assert "How the net was chosen is not known" in card and "One run" not in card


def test_names_beside_a_file_are_exported(tmp_path: Path) -> None:
    make_net().save(tmp_path / "mine.keras")
    names = [f"kind {k}" for k in range(10)]
    (tmp_path / "labels.txt").write_text("\n".join(names))
    assert export(tmp_path / "mine.keras", kinds=["onnx"])["class_names"] == names
    again = export(tmp_path / "mine-export/model.keras", output=tmp_path / "2", kinds=["onnx"])
    assert again["class_names"] == names


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_names_are_the_data_sets_where_it_is_absent(tmp_path: Path, dataset: str) -> None:
    mean, std = constants.NORMALIZATION[dataset]
    names = list(constants.CLASS_NAMES[dataset])
    net = keras_resnet.resnet(8, mean=mean, std=std, num_classes=len(names))
    net.save(tmp_path / "net.keras")
    facts = export(tmp_path / "net.keras", kinds=["onnx"], data_dir=str(tmp_path / "none"))
    assert facts["class_names"] == names


def test_formats_that_an_export_replaces_and_does_not_write_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_net().save(tmp_path / "net.keras")
    export(tmp_path / "net.keras", kinds=["saved_model", "onnx"])
    assert "note:" not in capsys.readouterr().out
    export(tmp_path / "net.keras", kinds=["onnx"])
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("note:")]
    assert "replaced" in line and "saved_model is gone" in line and "model.onnx" not in line
    assert not (tmp_path / "net-export" / "saved_model").exists()


# --- the card ---------------------------------------------


def snippets(card: str) -> dict[str, str]:
    """The Python snippets of a card, by their heading."""
    found = {}
    for section in card.split("\n### ")[1:]:
        heading, _, rest = section.partition("\n")
        found[heading] = rest.partition("```python\n")[2].partition("```")[0]
    return found


def test_card_snippets_run(exported, images, tmp_path: Path) -> None:
    net, folder, _ = exported
    card = (folder / "MODEL_CARD.md").read_text()
    found = snippets(card)
    assert set(found) == {"SavedModel", "ONNX", "LiteRT", "ONNX, int8"}
    for item in folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
    PIL.Image.fromarray(images[0]).save(tmp_path / "image.png")
    expected = net.predict(images[:1].astype(np.float32), verbose=0)[0]
    for heading, code in found.items():
        absent = ["keras_resnet", "keras"]
        absent += ["tensorflow", "tf2onnx", "onnx"] if "ONNX" in heading else []
        done = python(code, tmp_path, *absent)
        assert done.returncode == 0, f"{heading}: {done.stderr}"
        label, probability = done.stdout.split()
        assert label == constants.SYNTHETIC_CLASSES[expected.argmax()], heading
        tolerance = 0.1 if "int8" in heading else 1e-4
        assert abs(float(probability) - expected.max()) < tolerance, heading


def test_card_has_model_index_front_matter(exported) -> None:
    _, folder, _ = exported
    card = (folder / "MODEL_CARD.md").read_text()
    assert (folder / "README.md").read_text() == card
    front = card.split("---\n")[1]
    values = {
        key: json.loads(value)
        for key, value in (line.split(": ", 1) for line in front.splitlines())
    }
    (entry,) = values["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "resnet8" and result["task"]["type"] == "image-classification"
    assert result["dataset"]["name"] == "synthetic"
    assert result["metrics"][0] == {
        "type": "accuracy", "value": 0.8766, "name": "Accuracy, Keras float32",
    }  # fmt: skip
    assert "python train.py --depth 8 --dataset synthetic" in card and "12.34" in card
    assert values["license"] == "mit" and "One run. The test set was not used" in card


# --- when it goes wrong ---------------------------------------------


def test_wrong_file_fails_and_leaves_the_old_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_net().save(tmp_path / "net.keras")
    export(tmp_path / "net.keras", kinds=["onnx"])
    before = (tmp_path / "net-export" / "model.onnx").read_bytes()
    write = formats.write

    def write_wrong(kind: str, serving, path: Path, *rest) -> None:
        write(kind, serving, path, *rest)
        model = onnx.load(path)
        kernel = next(t for t in model.graph.initializer if "head_dense" in t.name)
        values = onnx.numpy_helper.to_array(kernel) + np.float32(0.01)
        kernel.CopyFrom(
            onnx.numpy_helper.from_array((values * 1.01).astype(np.float32), kernel.name)
        )
        onnx.save(model, path)

    monkeypatch.setattr(formats, "write", write_wrong)
    with pytest.raises(UserError, match="does not compute what Keras computes") as caught:
        export(tmp_path / "net.keras", kinds=["onnx"])
    assert caught.value.exit_code == 4
    assert (tmp_path / "net-export" / "model.onnx").read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["net-export", "net.keras"]


@pytest.mark.parametrize("batch", verify.VERIFICATION_BATCHES)
def test_another_class_in_any_batch_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    make_net().save(tmp_path / "net.keras")
    runner = formats.runner

    def one_wrong(kind: str, path: Path):
        run = runner(kind, path)

        def wrong(images):
            probabilities, class_id = run(images)
            return probabilities, class_id + (np.arange(len(images)) == 0) * (len(images) == batch)

        return wrong

    monkeypatch.setattr(formats, "runner", one_wrong)
    with pytest.raises(UserError, match="does not compute what Keras computes"):
        export(tmp_path / "net.keras", kinds=["onnx"])


@pytest.mark.parametrize(
    ("renames", "name", "content"),
    [(0, "export", "old"), (1, ".tmp-old-export", "old"), (2, "export", "new")],
)
def test_killed_while_renaming(tmp_path: Path, renames: int, name: str, content: str) -> None:
    """SIGKILL before, between and after the two renames: the old folder or the new one, whole."""
    code = f"""
import os, signal
from pathlib import Path
from keras_resnet.runs import staged
rename, left = Path.rename, {renames}
def killed(one, other):
    global left
    if left:
        rename(one, other)
        left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
final = Path("export")
written = frozenset({{"export.json", "model"}})
for content in ("old", "new"):
    if content == "new":
        Path.rename = killed if left else lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    with staged.staged(final, written, "export.json") as folder:
        (folder / "export.json").write_text(content)
        (folder / "model").mkdir()
        (folder / "model" / "file").write_text(content)
"""
    done = python(code, tmp_path, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / name / "export.json").read_text() == content
    assert (tmp_path / name / "model" / "file").read_text() == content
    # The next export clears away what the killed one left.
    written = frozenset({"export.json", "model"})
    with staged.staged(tmp_path / "export", written, "export.json") as folder:
        (folder / "export.json").write_text("next")
    assert [item.name for item in tmp_path.iterdir()] == ["export"]
    assert [item.name for item in (tmp_path / "export").iterdir()] == ["export.json"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with staged.staged(tmp_path / "x", frozenset({"marker"}), "marker") as folder:
            (folder / "marker").write_text(content)
    assert (tmp_path / "x" / "marker").read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["x"]


def test_foreign_folders_are_not_replaced(tmp_path: Path) -> None:
    make_net().save(tmp_path / "net.keras")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"did not write \(thesis.tex\)"):
        export(tmp_path / "net.keras", output=mine, kinds=["onnx"])
    assert (mine / "thesis.tex").read_text() == "x"
    export(tmp_path / "net.keras", kinds=["onnx"])
    (tmp_path / "net-export" / ".git").mkdir()
    with pytest.raises(UserError, match=r"\.git"):
        export(tmp_path / "net.keras", kinds=["onnx"])
    (tmp_path / "net-export" / ".git").rmdir()
    export(tmp_path / "net.keras", kinds=["web"])
    (tmp_path / "net-export/web/CNAME").write_text("example.org")
    with pytest.raises(UserError, match=r"did not write \(web/CNAME\)"):
        export(tmp_path / "net.keras", kinds=["onnx"])
    assert (tmp_path / "net-export/web/CNAME").read_text() == "example.org"


def test_litert_is_refused_where_it_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    bare = types.SimpleNamespace(__version__="9.9", lite=types.SimpleNamespace())
    monkeypatch.setattr(litert, "tf", bare)
    with pytest.raises(UserError, match=r"tf\.lite\.TFLiteConverter, which TensorFlow 9\.9"):
        export("nowhere", kinds=["litert"])


def test_saved_nets_of_every_kind_open_again(tmp_path: Path) -> None:
    for options in (
        {"shortcut": "zeropad"},
        {"shortcut": "zeropad-maxpool"},
        {"shortcut": "projection"},
        {"shortcut": "projection-all", "dtype": "mixed_float16"},
        {"plain": True},
        {"depth": 14, "num_classes": 100},
    ):
        net = make_net(**options)
        net.save(tmp_path / "net.keras")
        again = load_keras(tmp_path / "net.keras")
        for one, other in zip(net.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        told = describe(again)
        assert told["model"] == ("plain" if "plain" in options else "resnet")
        assert told["depth"] == options.get("depth", 8)
        assert told["num_classes"] == options.get("num_classes", 10)
        expected = None if "plain" in options else options.get("shortcut", "zeropad")
        assert told["shortcut"] == expected
        policies = {layer.compute_dtype for layer in stock(again).layers}
        assert policies == {"float32"}


def test_a_net_that_was_compiled_with_anything_is_opened(tmp_path: Path) -> None:
    net = keras_resnet.resnet(8)
    net.compile(
        keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    net.fit(np.zeros((2, 32, 32, 3)), np.zeros(2), verbose=0)
    net.save(tmp_path / "net.keras")
    opened = load_keras(tmp_path / "net.keras")
    assert not opened.compiled
    np.testing.assert_array_equal(opened.get_weights()[0], net.get_weights()[0])
