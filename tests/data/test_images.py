"""Images of every kind become what a net takes; bad ones are named in one line."""

import hashlib
import io
import struct

import numpy as np
import pytest
from PIL import Image

from keras_resnet.data.images import find_images, read_image
from keras_resnet.errors import UserError
from tests.helpers import random_images


def saved(image, suffix, **options):
    file = io.BytesIO()
    image.save(file, suffix, **options)
    file.seek(0)
    return Image.open(file)


def test_images_of_the_right_size_are_not_touched():
    pixels = random_images(32, 32)
    assert np.array_equal(read_image(pixels), pixels)
    assert np.array_equal(read_image(saved(Image.fromarray(pixels), "PNG")), pixels)


def test_resizing_does_not_alias_and_uses_the_whole_image():
    stripes = np.zeros((320, 320, 3), np.uint8)
    stripes[:, ::2] = 255  # plain subsampling would give all black or all white
    assert abs(read_image(stripes).astype(int)[4:-4, 4:-4] - 127.5).max() < 6
    wide = np.zeros((32, 320, 3), np.uint8)
    wide[:, :10], wide[:, -10:] = (255, 0, 0), (0, 0, 255)
    small = read_image(wide)
    assert small[16, 0, 0] > 200 and small[16, -1, 2] > 200 and small[16, 16].max() < 5


def test_tall_images_are_resized_alike_by_every_version_of_pillow():
    """Across, then down: of Pillow 11.0, 12.3 and 13.0 the same bits, which 13's own order does not give."""
    tall = np.random.default_rng(0).integers(0, 256, (700, 40, 3), dtype=np.uint8)
    assert hashlib.sha256(read_image(tall)).hexdigest().startswith("906bb83488bce7a1")


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


def test_grey_tiffs_of_12_bits_and_with_white_as_0():
    """Microscopes write them. Pillow writes no 12 bits: this file is made by hand."""
    rows = np.repeat(np.arange(32, dtype=np.uint16)[:, None] * 132, 32, axis=1)
    pairs = rows.reshape(-1, 2).astype(np.uint32)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] << 4 | pairs[:, 1] >> 8) & 255, pairs[:, 1] & 255], axis=-1
    )
    pixels = packed.astype(np.uint8).tobytes()
    for bits, photometric, data, most in (
        (12, 1, pixels, 4095),
        (16, 0, (rows * 16).tobytes(), 65535),
    ):
        tags = [(256, 32), (257, 32), (258, bits), (259, 1), (262, photometric), (273, 122)]
        tags += [(277, 1), (278, 32), (279, len(data))]
        head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
        head += b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
        file = io.BytesIO(head + struct.pack("<I", 0) + data)
        values = rows.astype(int) if bits == 12 else most - rows.astype(int) * 16
        expected = np.round(values * 255 / most)
        assert abs(read_image(file)[..., 0] - expected).max() <= 1, bits


def test_a_pil_image_of_a_truncated_file():
    whole = io.BytesIO()
    Image.fromarray(random_images(64, 64)).save(whole, "JPEG")
    image = Image.open(io.BytesIO(whole.getvalue()[:900]))
    with pytest.raises(ValueError, match="the PIL image could not be decoded: .*truncated"):
        read_image(image)


def test_transparent_parts_become_white():
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:16, :, 3] = 255
    expected = np.full((32, 32, 3), 255, np.uint8)
    expected[:16] = (200, 0, 0)
    assert np.array_equal(read_image(Image.fromarray(pixels)), expected)
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([200, 0, 0, 7, 7, 7])
    palette.paste(0, (0, 0, 32, 16))
    assert np.array_equal(read_image(saved(palette, "PNG", transparency=1)), expected)
    for gray, clear in ((np.uint8, 7), (np.uint16, 700)):
        hidden = np.full((32, 32), clear, gray)
        hidden[:16] = 0
        read = read_image(saved(Image.fromarray(hidden), "PNG", transparency=clear))
        assert read[:16].max() == 0 and read[16:].min() == 255
    assert np.unique(read_image(Image.new("LA", (32, 32), (0, 128)))).tolist() == [127]


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
    tiff, loaded = (saved(stored, "TIFF", tiffinfo={0x0112: orientation}) for _ in range(2))
    loaded.load()  # which turns it upright
    for image in (saved(stored, "PNG", exif=exif), tiff, loaded):
        small = read_image(image).astype(int)
        assert small[4, 4, 0] > 200 and small[4, 28, 0] < 50 and small[28, 4, 0] < 50


def test_every_mode_and_file_format(tmp_path):
    for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBX"):
        white = read_image(Image.new("RGB", (32, 32), "white").convert(mode))
        assert white.shape == (32, 32, 3) and white.min() > 250, mode
    for suffix in ("png", "jpg", "bmp", "gif", "ppm", "tif", "webp"):
        file = tmp_path / f"a.{suffix}"
        Image.new("RGB", (50, 40), (250, 10, 20)).save(file)
        assert abs(read_image(file).astype(int) - (250, 10, 20)).max() <= 8, suffix
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "b.gif")[16, 16].tolist() == [255, 0, 0]  # the first frame


def test_bad_files_are_named_in_one_line(tmp_path, monkeypatch):
    Image.fromarray(random_images(32, 32)).save(tmp_path / "whole.png")
    Image.new("1", (1, 65_536)).save(tmp_path / "strip.png")
    (tmp_path / "folder.png").mkdir()
    files = {
        "empty.png": (b"", "none of PNG"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of PNG"),
        "cut.png": ((tmp_path / "whole.png").read_bytes()[:1500], "truncated|broken"),
        "strip.png": (None, "65,535 per side"),
        "no.png": (None, "No such file"),
        "folder.png": (None, "not a file"),
    }
    for name, (content, message) in files.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            read_image(tmp_path / name)
        assert name in str(error.value), name
        assert "\n" not in str(error.value)


def test_links_to_folders_are_followed_and_end(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "photos/a.png")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/more").symlink_to(tmp_path / "photos")
    (tmp_path / "linked/loop").symlink_to(tmp_path / "linked")
    assert find_images(tmp_path / "linked") == ([tmp_path / "linked/more/a.png"], [])


def test_large_images_are_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    Image.new("1", (8_001, 8_000)).save(tmp_path / "over.png")
    with Image.open(tmp_path / "over.png") as image, pytest.raises(ValueError, match="at most"):
        read_image(image)
    with pytest.raises(UserError, match="at most 64,000,000"):
        read_image(tmp_path / "over.png")
