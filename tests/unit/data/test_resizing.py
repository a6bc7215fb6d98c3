"""Every way of resizing, pixel by pixel against the original code: torchvision's and timm's on Pillow, YOLO's on OpenCV."""

import math

import cv2
import numpy as np
import pytest
from PIL import Image

from emca_deploy.preprocessing import PILLOW_INTERPOLATIONS, Preprocessing
from zoo.images import preprocess

ZERO, ONE = (0.0,) * 3, (1.0,) * 3
RANDOM = np.random.default_rng(7)
SIZES = [tuple(map(int, RANDOM.integers(5, 90, 2))) for _ in range(12)]
INPUTS = [(24, 24), (17, 31), (40, 20)]


def photo(width, height, seed=0):
    """A smooth picture with edges, as uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 6, 3), np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).copy()
    pixels[height // 3 :, width // 2 :] //= 2
    return pixels


def pixels_of(image, used):
    """The result of `preprocess` as pixel values (height, width, channels)."""
    got = preprocess(Image.fromarray(image), used)
    assert got.shape == used.shape
    assert got.flags.c_contiguous
    return got.transpose(1, 2, 0)


def plain(size, resize_size, **options):
    """A record that does not change pixel values."""
    return Preprocessing(size, resize_size, ZERO, ONE, scale=1, **options)


def torchvision_resize(image, size, interpolation):
    """torchvision.transforms.functional.resize of a Pillow image, for an int as for a pair (height, width)."""
    if isinstance(size, int):
        width, height = image.size
        short, long = (width, height) if width <= height else (height, width)
        new_short, new_long = size, int(size * long / short)
        new = (new_short, new_long) if width <= height else (new_long, new_short)
    else:
        new = size[::-1]
    return image.resize(new, interpolation)


def torchvision_center_crop(image, height, width):
    """torchvision.transforms.functional.center_crop of a Pillow image."""
    from PIL import ImageOps

    have_width, have_height = image.size
    if width > have_width or height > have_height:
        border = (
            (width - have_width) // 2 if width > have_width else 0,
            (height - have_height) // 2 if height > have_height else 0,
            (width - have_width + 1) // 2 if width > have_width else 0,
            (height - have_height + 1) // 2 if height > have_height else 0,
        )
        image = ImageOps.expand(image, border, fill=0)
        have_width, have_height = image.size
    top, left = round((have_height - height) / 2.0), round((have_width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))


@pytest.mark.parametrize("interpolation", PILLOW_INTERPOLATIONS)
@pytest.mark.parametrize("size", INPUTS)
def test_shortest_and_squash_are_torchvisions_resize_and_center_crop(interpolation, size):
    filters = Image.Resampling[interpolation.upper()]
    for width, height in SIZES:
        image = photo(width, height)
        for short in (min(size), max(size) + 5):
            expected = torchvision_center_crop(torchvision_resize(Image.fromarray(image), short, filters), *size)
            got = pixels_of(image, plain(size, short, interpolation=interpolation))
            np.testing.assert_array_equal(got, np.asarray(expected))
        stretched = (size[0] + 4, size[1] + 3)
        expected = torchvision_center_crop(torchvision_resize(Image.fromarray(image), stretched, filters), *size)
        got = pixels_of(image, plain(size, stretched, resize="squash", interpolation=interpolation))
        np.testing.assert_array_equal(got, np.asarray(expected))
        expected = torchvision_center_crop(Image.fromarray(image), *size)
        np.testing.assert_array_equal(pixels_of(image, plain(size, 1, resize="none")), np.asarray(expected))


@pytest.mark.parametrize("size", INPUTS[1:])
def test_shortest_with_two_sides_is_timms_resize_keep_ratio(size):
    covered = tuple(math.floor(side / 0.9) for side in size)
    for width, height in SIZES:
        image = Image.fromarray(photo(width, height))
        ratio = min(height / covered[0], width / covered[1])  # timm.data.transforms.ResizeKeepRatio, longest 0
        resized = image.resize((round(width / ratio), round(height / ratio)), Image.Resampling.BICUBIC)
        expected = torchvision_center_crop(resized, *size)
        got = pixels_of(np.asarray(image), plain(size, covered, interpolation="bicubic"))
        np.testing.assert_array_equal(got, np.asarray(expected))


def letterbox(image, size, value, filters):
    """ultralytics.data.augment.LetterBox (auto and scale_fill off, scaleup on), its resize done by `filters`."""
    height, width = image.shape[:2]
    ratio = min(size[0] / height, size[1] / width)
    new = (round(width * ratio), round(height * ratio))
    dw, dh = (size[1] - new[0]) / 2, (size[0] - new[1]) / 2
    resized = filters(image, new)
    top, bottom = round(dh - 0.1), round(dh + 0.1)
    left, right = round(dw - 0.1), round(dw + 0.1)
    return cv2.copyMakeBorder(resized, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(value,) * 3)


def pillow_bilinear(image, size):
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", INPUTS)
def test_letterbox_is_yolos_and_its_rim_is_where_that_puts_it(size):
    for width, height in SIZES:
        image = photo(width, height)
        used = plain(size, size, resize="letterbox", pad_value=114.0)
        with_pillow = letterbox(
            image, size, 114, lambda a, new: np.asarray(Image.fromarray(a).resize(new, Image.Resampling.BILINEAR))
        )
        np.testing.assert_array_equal(pixels_of(image, used), with_pillow)
        if width <= size[1] and height <= size[0]:  # enlarged: both compute the same interpolation
            with_opencv = letterbox(image, size, 114, lambda a, new: cv2.resize(a, new, interpolation=cv2.INTER_LINEAR))
            assert np.abs(pixels_of(image, used) - with_opencv).max() <= 1


def test_a_letterbox_padded_at_the_end_has_its_image_at_the_top_left():
    image = photo(60, 30)
    got = pixels_of(image, plain((48, 192), 48, resize="letterbox", pad="end", pad_value=127.5))
    np.testing.assert_array_equal(got[:, :96], np.asarray(Image.fromarray(image).resize((96, 48), Image.Resampling.BILINEAR)))
    assert (got[:, 96:] == 127.5).all()


@pytest.mark.parametrize(
    ("interpolation", "flag", "tolerance"),
    # OpenCV's cubic has a = -0.75 and its lanczos 8 taps, Pillow's -0.5 and 6: they differ near edges, by this much at most.
    [("nearest", cv2.INTER_NEAREST_EXACT, 0), ("bilinear", cv2.INTER_LINEAR, 1), ("bicubic", cv2.INTER_CUBIC, 24)],
)
def test_enlarging_is_opencvs_within_a_tolerance(interpolation, flag, tolerance):
    worst = 0.0
    for width, height in SIZES:
        image = photo(width, height)
        expected = cv2.resize(image, (93, 95), interpolation=flag)
        got = pixels_of(image, plain((95, 93), (95, 93), resize="squash", interpolation=interpolation))
        worst = max(worst, float(np.abs(got - expected).max()))
    assert worst <= tolerance


def test_reducing_is_antialiased_which_opencvs_linear_is_not():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255
    got = pixels_of(stripes, plain(16, 16, resize="squash"))
    assert np.ptp(got[:, 2:-2]) < 80
    area = cv2.resize(stripes, (16, 16), interpolation=cv2.INTER_AREA)
    assert abs(float(got.mean()) - float(area.mean())) < 2


def test_bgr_and_gray_are_what_opencv_reads(tmp_path):
    image = photo(24, 24, seed=3)
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    np.testing.assert_array_equal(pixels_of(image, plain(24, 24, channels="bgr")), cv2.imread(str(path), cv2.IMREAD_COLOR))
    gray = Preprocessing(24, 24, (0.0,), (1.0,), channels="gray", scale=1)
    got = pixels_of(image, gray)
    assert got.shape == (24, 24, 1)
    np.testing.assert_array_equal(got[..., 0], np.asarray(Image.fromarray(image).convert("L")))
    assert np.abs(got[..., 0] - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).max() <= 1
    np.testing.assert_array_equal(pixels_of(image[..., 0], gray)[..., 0], image[..., 0])


def test_scale_mean_and_std_are_applied_in_that_order_to_each_channel():
    image = np.full((8, 8, 3), (10, 20, 30), np.uint8)
    of_255 = preprocess(Image.fromarray(image), Preprocessing(8, 8, (0.1, 0.2, 0.3), (0.5, 0.25, 0.125), channels="bgr"))
    np.testing.assert_allclose(
        of_255[:, 0, 0], [(30 / 255 - 0.1) / 0.5, (20 / 255 - 0.2) / 0.25, (10 / 255 - 0.3) / 0.125], rtol=1e-5
    )
    raw = preprocess(Image.fromarray(image), Preprocessing(8, 8, (1.0, 2.0, 3.0), (2.0, 4.0, 8.0), scale=1))
    np.testing.assert_allclose(raw[:, 0, 0], [4.5, 4.5, 27 / 8], rtol=1e-6)
