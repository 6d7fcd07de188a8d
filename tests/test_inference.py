"""Classifier: three formats, one behavior; images of every kind; bad input."""

import io
import json
import shutil
import zlib
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import tf2onnx
from PIL import Image

import keras_resnet
from keras_resnet import exporting, inference
from keras_resnet.cli import UserError
from keras_resnet.images import read_image
from keras_resnet.inference import Classifier

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FORMATS = ("keras", "saved_model", "onnx")


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
    (folder / "config.json").write_text(json.dumps({"class_names": names}))
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


@pytest.fixture(scope="module")
def net():
    return make_net()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    return export(net, tmp_path_factory.mktemp("run") / "seed-0")


@pytest.fixture(scope="module")
def classifiers(files):
    return {kind: Classifier.load(path) for kind, path in files.items()}


@pytest.fixture
def classifier(classifiers):
    return classifiers["onnx"]


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


def noise_png():
    file = io.BytesIO()
    Image.fromarray(random_images(32, 32)).save(file, "PNG")
    return file.getvalue()


# --- the same for each format ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("count", [1, 7, 300])
def test_each_format_computes_the_net(classifiers, net, kind, count):
    images = random_images(count, 32, 32)
    probabilities = classifiers[kind].predict(images)
    assert probabilities.dtype == np.float32 and probabilities.shape == (count, 10)
    expected = net.predict_on_batch(images.astype(np.float32))
    assert count < 300 or len(np.unique(expected.argmax(axis=1))) > 3  # the test net sees something
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_knows_its_classes_and_size(classifiers, kind):
    classifier = classifiers[kind]
    assert (classifier.format, classifier.class_names) == (kind, NAMES)
    assert classifier.image_size == (32, 32)


def test_what_export_writes_is_opened(net, files, tmp_path):
    folder = tmp_path / "exported"
    exporting.export(files["keras"], folder, data_dir=str(tmp_path))  # without data: synthetic
    images = random_images(7, 32, 32)
    for name in ("saved_model", "model.onnx"):
        classifier = Classifier.load(folder / name)
        assert classifier.class_names == NAMES
        np.testing.assert_allclose(classifier.predict(images), net(images), atol=1e-5)


def test_a_run_folder_is_its_model(files, classifiers):
    classifier = Classifier.load(str(files["keras"].parent))
    assert (classifier.path, classifier.class_names) == (files["keras"], NAMES)
    image = random_images(32, 32)
    assert np.array_equal(classifier.predict(image), classifiers["keras"].predict(image))


@pytest.mark.parametrize("kind", FORMATS)
def test_classes_without_names_are_numbered(files, kind, tmp_path):
    target = tmp_path / files[kind].name
    if kind == "onnx":
        proto = onnx.load(files[kind])
        del proto.metadata_props[:]
        onnx.save(proto, target)
    else:
        (shutil.copytree if files[kind].is_dir() else shutil.copy)(files[kind], target)
    assert Classifier.load(target).class_names == tuple(f"class {k}" for k in range(10))


def test_a_net_of_other_size_and_classes(tmp_path):
    files = export(
        make_net(input_shape=(24, 40, 3), num_classes=3), tmp_path / "run", ("a", "b", "c")
    )
    results = []
    for path in files.values():
        classifier = Classifier.load(path)
        assert (classifier.class_names, classifier.image_size) == (("a", "b", "c"), (24, 40))
        results.append(classifier.predict([random_images(24, 40), Image.new("L", (50, 60))]))
    assert results[0].shape == (2, 3)
    np.testing.assert_allclose(results[1], results[0], atol=1e-5)
    np.testing.assert_allclose(results[2], results[0], atol=1e-5)


# --- kinds of input -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_arrays_files_and_pil_images_are_the_same(classifiers, kind, tmp_path):
    images = random_images(4, 32, 32)
    Image.fromarray(images[1]).save(tmp_path / "1.png")
    Image.fromarray(images[2]).save(tmp_path / "2.bmp")
    mixed = [images[0], tmp_path / "1.png", str(tmp_path / "2.bmp"), Image.fromarray(images[3])]
    classifier = classifiers[kind]
    expected = classifier.predict(images)
    np.testing.assert_array_equal(classifier.predict(mixed), expected)
    np.testing.assert_array_equal(classifier.predict(image for image in mixed), expected)
    for k, image in enumerate(mixed):
        np.testing.assert_allclose(classifier.predict(image), expected[k : k + 1], atol=1e-6)
    np.testing.assert_array_equal(classifier.predict(tf.constant(images)), expected)


def test_no_image_gives_no_row(classifier):
    for empty in ([], np.zeros((0, 32, 32, 3), np.uint8), np.zeros((0, 64, 64, 3), np.uint8)):
        assert classifier.predict(empty).shape == (0, 10)


def test_views_that_are_not_contiguous(classifier):
    images = random_images(6, 32, 32)
    np.testing.assert_allclose(
        classifier.predict(images[::-2, :, ::-1]),
        classifier.predict(images[::-2, :, ::-1].copy()),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((32, 32, 3), np.float32),
        np.zeros((2, 32, 32, 3)),
        np.zeros((32, 32, 3), np.int64),
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((1, 2, 32, 32, 3), np.uint8),
        np.zeros((2, 0, 32, 3), np.uint8),
        [np.zeros((2, 32, 32, 3), np.uint8)],
        [np.zeros((32, 32, 3))],
        [[1, 2], [3, 4]],
        [None],
        5,
        None,
        b"cat.png",
        Image.new("F", (32, 32)),
        Image.new("RGB", (0, 7)),
    ],
    ids=lambda v: f"{type(v).__name__}-{getattr(v, 'dtype', '')}-{getattr(v, 'shape', '')}",
)
def test_other_input_is_a_value_error(classifier, images):
    with pytest.raises(ValueError, match=r"uint8 arrays .* Received: \w+ array|floats|no pixels"):
        classifier.predict(images)


def test_float_pixels_get_a_hint(classifier):
    with pytest.raises(ValueError, match=r"Received: float32 .*\(32, 32, 3\).*astype\('uint8'\)"):
        classifier.predict(np.zeros((32, 32, 3), np.float32))


def test_chunks_bound_the_memory(classifier, monkeypatch):
    sizes, alive = [], []
    monkeypatch.setattr(inference, "CHUNK", 4)

    def run(images):
        sizes.append(len(images))
        return np.full((len(images), 10), 0.1, np.float32)

    def stream():
        for k in range(10):
            alive.append(k - sum(sizes))  # decoded and not yet run
            yield random_images(32, 32)

    fake = inference.Classifier(Path("x"), "onnx", NAMES, (32, 32), run)
    assert fake.predict(stream()).shape == (10, 10)
    assert sizes == [4, 4, 2] and max(alive) < 4
    sizes.clear()
    fake.predict(np.zeros((9, 32, 32, 3), np.uint8))
    fake.predict(np.zeros((5, 64, 32, 3), np.uint8))
    assert sizes == [4, 4, 1, 4, 1]


def test_a_net_that_gives_nan_is_refused():
    fake = Classifier(
        Path("x.onnx"), "onnx", NAMES, (32, 32), lambda x: np.full((len(x), 10), np.nan)
    )
    with pytest.raises(UserError, match=r"x\.onnx.*not finite"):
        fake.predict(random_images(32, 32))


# --- conversion of images -------------------------------------------------------------------------


def saved(image, suffix, **options):
    file = io.BytesIO()
    image.save(file, suffix, **options)
    file.seek(0)
    return Image.open(file)


def test_images_of_the_right_size_are_not_touched():
    pixels = random_images(32, 32)
    assert np.array_equal(read_image(pixels), pixels)
    assert np.array_equal(read_image(saved(Image.fromarray(pixels), "PNG")), pixels)


def test_shrinking_does_not_alias():
    stripes = np.zeros((320, 320, 3), np.uint8)
    stripes[:, ::2] = 255  # plain subsampling would give all black or all white
    small = read_image(stripes).astype(int)
    assert abs(small[4:-4, 4:-4] - 127.5).max() < 6


def test_the_whole_image_is_used():
    wide = np.zeros((32, 320, 3), np.uint8)
    wide[:, :10], wide[:, -10:] = (255, 0, 0), (0, 0, 255)
    small = read_image(wide)
    assert small[16, 0, 0] > 200 and small[16, -1, 2] > 200 and small[16, 16].max() < 5


def test_grey_of_8_and_16_bits():
    grey = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64
    eight = (grey // 257).astype(np.uint8)
    assert np.array_equal(read_image(Image.fromarray(eight)), np.stack([eight] * 3, axis=-1))
    expected = np.stack([np.round(grey / 257)] * 3, axis=-1)
    for image in (
        saved(Image.fromarray(grey), "PNG"),
        saved(Image.fromarray(grey), "TIFF"),
        Image.fromarray(grey.astype(np.int32)),
    ):
        assert np.array_equal(read_image(image), expected), image.mode


def test_transparent_parts_become_white():
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:16, :, 3] = 255
    expected = np.full((32, 32, 3), 255, np.uint8)
    expected[:16] = (200, 0, 0)
    rgba = Image.fromarray(pixels)
    assert np.array_equal(read_image(rgba), expected)
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([200, 0, 0, 7, 7, 7])
    palette.paste(0, (0, 0, 32, 16))
    assert np.array_equal(read_image(saved(palette, "PNG", transparency=1)), expected)
    half = Image.new("LA", (32, 32), (0, 128))
    assert np.unique(read_image(half)).tolist() == [127]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_modes_become_rgb(mode):
    white = Image.new("RGB", (32, 32), "white").convert(mode)
    assert read_image(white).shape == (32, 32, 3)
    assert read_image(white).min() > 250


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    upright = Image.new("RGB", (64, 32))
    upright.paste((255, 0, 0), (0, 0, 32, 16))  # red at the top left
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(turn[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = read_image(saved(stored, "PNG", exif=exif)).astype(int)
    assert small[4, 4, 0] > 200 and small[4, 28, 0] < 50 and small[28, 4, 0] < 50


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[16, 16].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "ppm", "tif", "webp"])
def test_file_formats(suffix, tmp_path):
    file = tmp_path / f"a.{suffix}"
    Image.new("RGB", (50, 40), (250, 10, 20)).save(file)
    assert abs(read_image(file).astype(int) - (250, 10, 20)).max() <= 8


# --- bad images -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "0 bytes"),
        ("text.png", b"I am a poem.\n", "none of PNG, JPEG"),
        ("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of PNG"),
        ("cut.png", noise_png()[:1500], "truncated|broken"),
        ("header.png", b"\x89PNG\r\n\x1a\n", "none of PNG|truncated|broken"),
        ("bomb.png", bomb_png(20_000, 20_000), "more pixels than the 64,000,000"),
        ("large.png", bomb_png(10_000, 10_000), "more pixels than the 64,000,000"),  # Pillow warns
        ("over.png", bomb_png(8_001, 8_000), "more pixels than the 64,000,000"),  # Pillow is silent
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(("png", "eps")) else "",
)
def test_bad_files_are_named_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert len(content) < 200_000
    with pytest.raises(UserError, match=message) as error:
        read_image(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_bombs_are_refused_before_decoding(tmp_path, monkeypatch):
    def load(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    (tmp_path / "bomb.png").write_bytes(bomb_png(8_001, 8_000))
    with pytest.raises(UserError, match="more pixels"):
        read_image(tmp_path / "bomb.png")
    with Image.open(tmp_path / "bomb.png") as image, pytest.raises(ValueError, match="more pixels"):
        read_image(image)


def test_paths_that_are_no_files(tmp_path):
    for path, message in [(tmp_path / "no.png", "no such file"), (tmp_path, "not a file")]:
        with pytest.raises(UserError, match=message):
            read_image(path)
    with pytest.raises(UserError, match="no such file"):
        read_image("a\0b.png")


# --- bad models -----------------------------------------------------------------------------------


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
    write("truncated.keras", whole[: len(whole) // 2], "damaged|no Keras file")
    write("zero.keras", b"", "damaged|no Keras file")
    zipped = shutil.make_archive(
        str(folder / "z"), "zip", files["saved_model"].parent, "labels.txt"
    )
    write("zip.keras", Path(zipped).read_bytes(), "no Keras file")
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save(folder / "other.keras")
    made["other.keras"] = (folder / "other.keras", "not one of ours")
    write("model.h5", b"x", r"must be a \.keras file.*another file")
    proto = files["onnx"].read_bytes()
    write("truncated.onnx", proto[: len(proto) // 2], "could not be read as an ONNX")
    write("zero.onnx", b"", "ONNX|not a model")
    write("text.onnx", b"I am a poem.\n", "could not be read as an ONNX")
    for name, inputs in {
        "name.onnx": [("input", uint8, ["N", 32, 32, 3])],
        "float.onnx": [("image", float32, ["N", 32, 32, 3])],
        "two.onnx": [("image", uint8, ["N", 32, 32, 3]), ("mask", uint8, ["N"])],
    }.items():
        made[name] = (foreign_onnx(folder / name, inputs), "not a model of this package.*Received")
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
    made["foreign SavedModel"] = (folder / "foreign", "not a model of this package")
    return made


def test_bad_models_are_named_in_one_line(tmp_path, files):
    for name, (path, message) in bad_models(tmp_path, files).items():
        with pytest.raises(UserError, match=message) as error:
            Classifier.load(path)
        assert path.name in str(error.value) and "\n" not in str(error.value), name
        assert len(str(error.value)) < 500, name


def test_a_run_that_is_not_finished(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not finished"):
        Classifier.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{0: 'a', 1: \"b's\"}", ("a", "b's")),
        ('{"1": "b", "0": "a"}', ("a", "b")),
        ("['a', 'b']", ("a", "b")),
        ("{0: 'a\\x1b[31m', 1: 2}", ("a\N{REPLACEMENT CHARACTER}[31m", "2")),
        ("{0: 'a', 2: 'b'}", None),
        ("{0: 'a'", None),
        ("{}", None),
        ("7", None),
        ("__import__('os').system('true')", None),
        ("-" * 100_000 + "1", None),
        ("(" * 100_000, None),
        ("{0: '" + "a" * 2_000_000 + "'}", None),
    ],
    ids=range(12),
)
def test_names_metadata(text, expected):
    if expected:
        assert inference._parse_names(text, Path("x.onnx")) == expected
    else:
        with pytest.raises(UserError, match=r"x\.onnx: metadata 'names' must be"):
            inference._parse_names(text, Path("x.onnx"))


def test_names_that_do_not_fit_are_an_error(files, tmp_path):
    proto = onnx.load(files["onnx"])
    onnx.helper.set_model_props(proto, {"names": "{0: 'a', 1: 'b'}"})
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(UserError, match=r"m\.onnx has 10 classes but metadata with 2 names"):
        Classifier.load(tmp_path / "m.onnx")
    shutil.copy(files["keras"], tmp_path)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"labels\.txt must name the 10 classes"):
        Classifier.load(tmp_path / "model.keras")
    (tmp_path / "labels.txt").unlink()
    (tmp_path / "config.json").write_text("[1, 2]")  # some other program's
    assert Classifier.load(tmp_path / "model.keras").class_names[0] == "class 0"
