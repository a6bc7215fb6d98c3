import cv2
import numpy as np
import pytest
from PIL import Image

from emca_deploy.data.opencv_resize import OPENCV_FILTERS, opencv_resized
from emca_deploy.data.preprocess import to_pixels
from emca_deploy.preprocessing import OPENCV_INTERPOLATIONS, Preprocessing

CODES = {
    "opencv-linear": cv2.INTER_LINEAR,
    "opencv-cubic": cv2.INTER_CUBIC,
    "opencv-area": cv2.INTER_AREA,
    "opencv-nearest": cv2.INTER_NEAREST,
}
SIZES = [
    ((33, 57), (16, 20)), ((300, 411), (256, 350)), ((64, 64), (32, 32)), ((20, 30), (50, 77)), ((100, 40), (50, 90)),
    ((333, 500), (224, 224)), ((7, 5), (1, 1)),
]  # fmt: skip


def test_every_name_is_a_filter():
    assert set(OPENCV_FILTERS) == set(OPENCV_INTERPOLATIONS)


@pytest.mark.parametrize("name", OPENCV_INTERPOLATIONS)
@pytest.mark.parametrize(("have", "want"), SIZES)
def test_pixels_are_within_one_of_opencv(name, have, want):
    image = np.random.default_rng(0).integers(0, 256, (*have, 3), np.uint8)
    theirs = cv2.resize(image, want[::-1], interpolation=CODES[name])
    assert np.abs(opencv_resized(image, want, name).astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("channels", ["rgb", "bgr", "gray"])
def test_preprocessing_takes_opencvs_filters(channels):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8))
    count = 1 if channels == "gray" else 3
    used = Preprocessing(24, 32, (0.0,) * count, (1.0,) * count, interpolation="opencv-linear", channels=channels)
    source = np.asarray(image.convert("L") if count == 1 else image)
    theirs = np.atleast_3d(cv2.resize(source, (48, 32), interpolation=cv2.INTER_LINEAR))[4:28, 12:36]
    if channels == "bgr":
        theirs = theirs[:, :, ::-1]
    assert np.abs(to_pixels(image, used) - theirs.transpose(2, 0, 1)).max() <= 1
