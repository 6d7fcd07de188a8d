"""Classifier: three formats, one behavior; images of every kind; bad input."""

from __future__ import annotations

import hashlib
import io
import shutil
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet.errors import UserError
from keras_resnet.export import pipeline
from keras_resnet.inference import classifier as classifier_module
from keras_resnet.inference.classifier import Classifier
from keras_resnet.inference.images import read_image
from keras_resnet.inference.open import _parse_names
from tests.helpers import (
    FORMATS,
    NAMES,
    bad_models,
    bomb_png,
    export,
    make_net,
    random_images,
)


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
    pipeline.export(files["keras"], folder, data_dir=str(tmp_path))  # without data: synthetic
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
    monkeypatch.setattr(classifier_module, "CHUNK", 4)

    def run(images):
        sizes.append(len(images))
        return np.full((len(images), 10), 0.1, np.float32)

    def stream():
        for k in range(10):
            alive.append(k - sum(sizes))  # decoded and not yet run
            yield random_images(32, 32)

    fake = Classifier(Path("x"), "onnx", NAMES, (32, 32), run)
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


def test_tall_images_are_resized_alike_by_every_version_of_pillow():
    """Across, then down: of Pillow 11.0, 12.3 and 13.0 the same bits, which 13's own order does not give."""
    tall = np.random.default_rng(0).integers(0, 256, (700, 40, 3), dtype=np.uint8)
    assert hashlib.sha256(read_image(tall)).hexdigest().startswith("906bb83488bce7a1")


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
    for gray, clear in ((np.uint8, 7), (np.uint16, 700)):
        hidden = np.full((32, 32), clear, gray)
        hidden[:16] = 0
        read = read_image(saved(Image.fromarray(hidden), "PNG", transparency=clear))
        assert read[:16].max() == 0 and read[16:].min() == 255
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
    # A directory of two tags: ImageWidth, which should be a number and is text, and Orientation.
    exif = struct.pack("<2sHIH", b"II", 42, 8, 2)
    exif += struct.pack("<HHI4s", 0x0100, 2, 4, b"wid")
    exif += struct.pack("<HHIHHI", 0x0112, 3, 1, orientation, 0, 0)
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


def test_long_strips_are_refused_before_decoding(tmp_path):
    (tmp_path / "strip.png").write_bytes(bomb_png(1, 65_536))
    with pytest.raises(UserError, match="a side of more than the 65,535 pixels"):
        read_image(tmp_path / "strip.png")
    (tmp_path / "strip.png").write_bytes(bomb_png(1, 65_535))
    assert read_image(tmp_path / "strip.png").shape == (32, 32, 3)


def test_paths_that_are_no_files(tmp_path):
    for path, message in [(tmp_path / "no.png", "no such file"), (tmp_path, "not a file")]:
        with pytest.raises(UserError, match=message):
            read_image(path)
    with pytest.raises(UserError, match="no such file"):
        read_image("a\0b.png")


def test_a_damaged_file_is_refused_by_the_name_of_its_export_too(files, tmp_path):
    folder = tmp_path / "export"
    pipeline.export(files["keras"], output=folder, kinds=["onnx"])
    assert Classifier.load(folder).class_names == NAMES
    file = folder / "model.keras"
    file.write_bytes(file.read_bytes() + b"\0")
    for path in (file, folder):
        with pytest.raises(UserError, match=r"model\.keras is damaged: its SHA-256"):
            Classifier.load(path)


# --- bad models -----------------------------------------------------------------------------------


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
        assert _parse_names(text, Path("x.onnx")) == expected
    else:
        with pytest.raises(UserError, match=r"x\.onnx: metadata 'names' must be"):
            _parse_names(text, Path("x.onnx"))


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
