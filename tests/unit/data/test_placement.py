"""The place of an image in the input, from which boxes go back to the image's pixels."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from refusals import refusing

from emca_deploy.data.preprocess import Placement, decoded_size, normalize, to_pixels
from emca_deploy.errors import DataError
from emca_deploy.preprocessing import Preprocessing


def letterbox(size, **more):
    return Preprocessing(size, size, resize="letterbox", **more)


def test_letterbox_at_the_end_pads_right_and_below():
    used = letterbox((64, 96), pad="end")
    placed = Placement.of((200, 100), used)
    assert placed.offset == (0, 0)
    assert placed.scale == pytest.approx((0.32, 0.32))
    boxes = np.array([[0, 0, 32, 64], [16, 32, 32, 64]], np.float32)
    assert placed.to_image(boxes).tolist() == [[0, 0, 100, 200], [50, 100, 100, 200]]


def test_letterbox_in_the_centre():
    placed = Placement.of((200, 100), letterbox((64, 96)))
    assert placed.offset == (32, 0)
    assert placed.to_image(np.array([[32, 0, 64, 64]], np.float32)).tolist() == [[0, 0, 100, 200]]


def test_both_axes_have_the_scale_of_their_rounding():
    placed = Placement.of((333, 500), letterbox((64, 64), pad="end"))
    assert placed.scale == (64 / 500, 43 / 333)


def test_crops_have_a_negative_offset():
    placed = Placement.of((100, 200), Preprocessing(50, 80))
    assert placed.scale == (0.8, 0.8)
    assert placed.offset == (-55, -15)
    assert Placement.of((40, 40), Preprocessing(50, 50, resize="none")).offset == (5, 5)
    assert Placement.of((100, 200), Preprocessing(50, 50, resize="squash")).scale == (0.25, 0.5)


MODES = st.sampled_from(
    [("letterbox", "center"), ("letterbox", "end"), ("squash", "center"), ("shortest", "center"), ("none", "end")]
)


@given(MODES, st.integers(30, 90), st.integers(30, 90), st.integers(20, 60), st.integers(20, 60))
def test_a_rectangle_comes_back_where_it_was(mode, height, width, tall, wide):
    """Find a bright rectangle in the input, and move its box back: half a pixel of the input is the most it may be off."""
    image = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = box = (width // 3, height // 3, 2 * width // 3, 2 * height // 3)
    image[y1:y2, x1:x2] = 255
    used = Preprocessing((tall, wide), (tall, wide), resize=mode[0], pad=mode[1], interpolation="nearest", pad_value=0)
    pixels = to_pixels(Image.fromarray(image), used)
    placed = Placement.of((height, width), used)
    rows, columns = np.nonzero(pixels[0])
    inside = rows.size and columns.min() > 0 and columns.max() < wide - 1 and rows.min() > 0 and rows.max() < tall - 1
    if not inside:  # cropped
        return
    found = placed.to_image(np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32))[0]
    assert np.abs(found - box).max() <= 0.51 / min(placed.scale) + 0.51


@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [(1, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)), (255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))],
)
def test_a_border_of_the_mean_is_zero_in_the_input(scale, mean, std):
    used = letterbox((32, 64), pad="end", pad_value="mean", scale=scale, mean=mean, std=std)
    made = normalize(to_pixels(Image.new("RGB", (20, 20), (200, 10, 30)), used), used)
    assert np.abs(made[:, :, 32:]).max() < 1e-6
    assert np.abs(made[:, :, :32]).min() > 0.1


def test_a_border_of_the_mean_stands_in_manifests():
    from emca_deploy.results.codec import from_json, to_json

    used = letterbox((32, 64), pad="end", pad_value="mean")
    assert from_json(Preprocessing, to_json(used)) == used
    with pytest.raises(ValueError, match="pad_value"):
        letterbox(32, pad_value="median")


def stored(orientation=None):
    image, out = Image.new("RGB", (30, 20)), io.BytesIO()
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(out, "JPEG", exif=exif)
    return io.BytesIO(out.getvalue())


@pytest.mark.parametrize(
    ("orientation", "mode", "size"),
    [(None, "apply", (20, 30)), (6, "apply", (30, 20)), (6, "ignore", (20, 30)), (3, "apply", (20, 30))],
)
def test_the_size_is_that_of_the_decoded_image(orientation, mode, size):
    assert decoded_size(stored(orientation), "x.jpg", mode) == size


def test_what_is_no_image_has_no_size():
    with refusing(DataError, "x.jpg"):
        decoded_size(io.BytesIO(b"GIF89a"), "x.jpg")
