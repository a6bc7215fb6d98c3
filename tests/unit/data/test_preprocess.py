"""Decoding and preprocessing: colours, sizes, and files that are not images."""

import io
import struct
import threading
import warnings

import numpy as np
import pytest
from PIL import Image
from refusals import refusing

from emca_deploy.artifacts import Preprocessing
from emca_deploy.data.bundled import BUNDLED_PREPROCESSING
from emca_deploy.data.preprocess import decode, to_rgb
from emca_deploy.errors import DataError
from emca_deploy.preprocessing import MAX_PIXELS
from zoo.images import preprocess

PLAIN = Preprocessing(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(content):
    return decode(io.BytesIO(content), "photo.png")


def noise(height, width, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def test_fashion_mnist_images_are_resized_as_in_training():
    gray = noise(28, 28, channels=1)[:, :, 0]
    trained_on = np.asarray(Image.fromarray(gray).resize((64, 64), Image.Resampling.BILINEAR), np.float32)
    expected = (trained_on / np.float32(255) - np.float32(0.286)) / np.float32(0.353)
    got = preprocess(Image.fromarray(gray), BUNDLED_PREPROCESSING)
    assert got.shape == (3, 64, 64)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    for channel in got:
        np.testing.assert_array_equal(channel, expected)


@pytest.mark.parametrize(
    ("width", "height", "resized", "box"),
    [
        (50, 30, (53, 32), (14, 4, 38, 28)),  # 53.33 is truncated to 53; an offset of 14.5 is rounded to the even 14
        (30, 50, (32, 53), (4, 14, 28, 38)),
        (51, 30, (54, 32), (15, 4, 39, 28)),
        (52, 30, (55, 32), (16, 4, 40, 28)),  # 15.5 is rounded to the even 16
        (10, 10, (32, 32), (4, 4, 28, 28)),
        (32, 40, (32, 40), (4, 8, 28, 32)),
    ],
)
def test_the_short_side_is_resized_and_the_centre_cropped(width, height, resized, box):
    image = Image.fromarray(noise(height, width))
    got = preprocess(image, Preprocessing(24, 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    expected = np.asarray(image.resize(resized, Image.Resampling.BILINEAR).crop(box))
    np.testing.assert_array_equal(np.round(got * 255).transpose(1, 2, 0), expected)


def test_a_crop_larger_than_the_image_is_padded_with_black_the_odd_pixel_right_and_below():
    got = preprocess(Image.new("RGB", (4, 4), "white"), Preprocessing(7, 4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    expected = np.zeros((7, 7), np.float32)
    expected[1:5, 1:5] = 1
    np.testing.assert_array_equal(got, np.stack([expected] * 3))


def test_channels_are_red_green_blue_each_with_its_own_normalisation():
    image = Image.new("RGB", (8, 8), (255, 51, 0))
    got = preprocess(image, Preprocessing(8, 8, (0.5, 0.1, 0.25), (0.5, 0.1, 0.25)))
    np.testing.assert_allclose(got[:, 0, 0], [1.0, 1.0, -1.0], atol=1e-6)


def test_a_needle_is_refused_before_it_is_resized():
    with refusing(DataError, "needle.png", "100000x1"):
        preprocess(Image.new("RGB", (100_000, 1)), Preprocessing(), "needle.png")


ORIENTATION_TAG = 0x0112


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_set_upright_where_asked_and_else_left_alone(orientation):
    upright = np.zeros((6, 4, 3), np.uint8)
    upright[0, 0], upright[0, 3] = (255, 0, 0), (0, 255, 0)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(io.BytesIO(content), "photo.png", "apply")), upright)
    np.testing.assert_array_equal(np.asarray(decode(io.BytesIO(content), "photo.png")), stored)  # like torchvision's ImageFolder


def test_damaged_exif_does_not_cost_the_image():
    content = encoded(Image.new("RGB", (4, 4), "red"), "JPEG", quality=100, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    got = decode(io.BytesIO(content), "photo.jpg", "apply")
    assert got.getpixel((0, 0))[0] > 250


def rgb_of(content):
    image = decoded(content)
    assert image.mode == "RGB"
    return np.asarray(image)[0, 0].tolist()


def test_every_mode_of_image_becomes_rgb():
    assert rgb_of(encoded(Image.new("L", (2, 2), 77))) == [77, 77, 77]
    assert rgb_of(encoded(Image.new("1", (2, 2), 1))) == [255, 255, 255]
    assert rgb_of(encoded(Image.new("LA", (2, 2), (77, 0)))) == [77, 77, 77]
    assert rgb_of(encoded(Image.new("RGBA", (2, 2), (10, 20, 30, 0)))) == [10, 20, 30]
    assert rgb_of(encoded(Image.new("CMYK", (2, 2), (255, 0, 0, 0)), "TIFF")) == [0, 255, 255]
    assert rgb_of(encoded(Image.new("RGB", (2, 2), (10, 20, 30)), "BMP")) == [10, 20, 30]
    assert rgb_of(encoded(Image.new("RGB", (2, 2), (10, 20, 30)), "PPM")) == [10, 20, 30]
    assert rgb_of(encoded(Image.new("RGB", (2, 2), (10, 20, 30)), "WEBP", lossless=True)) == [10, 20, 30]


def test_palettes_with_and_without_transparency_become_rgb_without_a_warning():
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rgb_of(encoded(image)) == [10, 20, 30]
        assert rgb_of(encoded(image, transparency=b"\x80\x00")) == [10, 20, 30]
        assert rgb_of(encoded(image, "GIF", transparency=1)) == [10, 20, 30]


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (128, 0), (129, 1), (257, 1), (32896, 128), (65535, 255)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_not_clipped(kind, value, expected):
    image = Image.fromarray(np.full((2, 2), value, np.uint16))
    assert rgb_of(encoded(image, kind)) == [expected] * 3


def test_sixteen_bit_gray_of_a_pgm_is_scaled():
    assert rgb_of(b"P5 2 2 65535\n" + struct.pack(">4H", *[32896] * 4)) == [128, 128, 128]


def test_pixels_without_a_defined_range_are_refused():
    for dtype in (np.float32, np.int32):
        content = encoded(Image.fromarray(np.full((2, 2), 1 << 20, dtype)), "TIFF")
        with refusing(DataError, "photo.png"):
            decoded(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_truncated_images_are_named(kind):
    content = encoded(Image.fromarray(noise(64, 64)), kind)
    for length in (0, 5, 20, len(content) // 2):
        with pytest.raises(DataError) as caught:
            decoded(content[:length])
        assert caught.value.problem.startswith("photo.png: cannot be decoded: ")
        assert "\n" not in caught.value.problem
        assert "0x" not in caught.value.problem


def test_no_damage_raises_anything_but_a_data_error():
    random = np.random.default_rng(1)
    sound = [encoded(Image.fromarray(noise(16, 16)), kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP")]
    refused = 0
    for turn in range(600):
        content = bytearray(sound[turn % len(sound)])
        for place in random.integers(0, min(len(content), 200), 3):
            content[place] = random.integers(0, 256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert decoded(bytes(content)).mode == "RGB"
        except DataError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("content", [b"", b"plain text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_image_or_of_a_kind_that_needs_other_programs_is_refused(content):
    with refusing(DataError, "photo.png", "JPEG"):
        decoded(content)


def png_of_size(width, height):
    """A valid header and nothing else: the header alone must be refused."""
    import zlib

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (chunk, data, b"IEND")
    )


@pytest.mark.parametrize("factor", [1, 3])  # Pillow warns at its limit and raises at twice that
def test_pixel_bombs_are_refused_by_their_header_without_a_warning(factor):
    content = png_of_size(10_000, factor * MAX_PIXELS // 10_000 + 1)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with refusing(DataError, "photo.png", MAX_PIXELS):
            decoded(content)
    assert seen == []


def test_the_limit_holds_where_the_program_has_lifted_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with refusing(DataError, "photo.png", MAX_PIXELS):
        decoded(png_of_size(10_000, 10_000))


class Held(io.BytesIO):
    """A file that signals its first read and waits to be released."""

    def __init__(self, content):
        super().__init__(content)
        self.reading, self.go = threading.Event(), threading.Event()

    def read(self, *arguments):
        self.reading.set()
        assert self.go.wait(10)
        return super().read(*arguments)


def test_two_threads_that_open_at_once_leave_the_warning_filters_alone():
    before = list(warnings.filters)
    streams = [Held(encoded(Image.fromarray(noise(16, 16)))) for _ in range(2)]
    threads = [threading.Thread(target=decode, args=(stream, "photo.png")) for stream in streams]
    for thread, stream in zip(threads, streams, strict=True):
        thread.start()
        stream.reading.wait(0.3)  # the lock keeps the second one from reading; without it both would be inside now
    for thread, stream in zip(threads, streams, strict=True):
        stream.go.set()
        thread.join()
    assert warnings.filters == before


def test_to_rgb_leaves_rgb_alone():
    image = Image.new("RGB", (2, 2))
    assert to_rgb(image) is image
