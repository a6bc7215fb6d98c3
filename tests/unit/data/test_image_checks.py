"""Calibration images without information, and images that are used twice."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from emca_deploy.artifacts import Preprocessing
from emca_deploy.data.image_checks import calibration_warnings, image_digests, shared_images
from emca_deploy.data.sources import open_source
from emca_deploy.errors import DataError

PLAIN = Preprocessing(8, 8, (0.0,) * 3, (1.0,) * 3)


def folder_of(path, pictures, suffix="png"):
    path.mkdir(parents=True)
    for index, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(path / f"{index:03}.{suffix}")
    return path


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 10, 10, 3), np.uint8)


def warnings_of(path):
    source = open_source(path, PLAIN)
    return calibration_warnings(source, range(len(source)))


def test_images_that_differ_are_worth_no_word(tmp_path):
    assert warnings_of(folder_of(tmp_path / "a", noise(20))) == ()


@pytest.mark.parametrize("value", [0, 77, 255])
def test_images_of_one_colour_are_said(tmp_path, value):
    pictures = np.full((20, 10, 10, 3), value, np.uint8)
    assert len(warnings_of(folder_of(tmp_path / "a", pictures))) == 1
    mostly = np.concatenate([pictures, noise(5)])
    assert len(warnings_of(folder_of(tmp_path / "b", mostly))) == 1
    few = np.concatenate([pictures[:3], noise(20)])
    assert warnings_of(folder_of(tmp_path / "c", few)) == ()


def test_one_picture_many_times_and_one_picture_once_are_said(tmp_path):
    assert len(warnings_of(folder_of(tmp_path / "a", np.repeat(noise(1), 20, axis=0)))) == 1
    assert len(warnings_of(folder_of(tmp_path / "b", noise(1)))) == 1


@pytest.mark.parametrize("shared", [0, 1, 7])
def test_shared_images_are_counted_whatever_they_are_called_and_packed_in(tmp_path, shared):
    ours, theirs = noise(30), noise(20, seed=1)
    theirs[:shared] = ours[5 : 5 + shared]
    calibration = open_source(folder_of(tmp_path / "a", ours), PLAIN)
    folder = folder_of(tmp_path / "b", np.random.default_rng(3).permutation(theirs))
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    digests = image_digests(calibration, range(30))
    for place in (folder, tmp_path / "b.zip"):
        source = open_source(place, PLAIN)
        assert shared_images(source, range(len(source)), digests) == shared


def test_arrays_are_told_apart_too(tmp_path):
    images = np.random.default_rng(0).standard_normal((10, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", images=images)
    np.savez(tmp_path / "b.npz", images=np.concatenate([images[3:5], images[:4] + 1]))
    a, b = (open_source(tmp_path / name, PLAIN) for name in ("a.npz", "b.npz"))
    assert shared_images(b, range(6), image_digests(a, range(10))) == 2
    assert shared_images(b, range(2, 6), image_digests(a, range(10))) == 0


def test_digests_do_not_grow_without_end_and_still_find_what_is_shared(tmp_path):
    images = np.random.default_rng(0).standard_normal((5000, 3, 1, 1)).astype(np.float32)
    np.savez(tmp_path / "a.npz", images=images)
    source = open_source(tmp_path / "a.npz", Preprocessing(1, 1))
    digests = image_digests(source, range(5000))
    assert len(digests) == 4096
    assert shared_images(source, range(5000), digests) == 4096


@pytest.mark.parametrize("parts", [("train", "val"), ("Train", "Test"), ("training", "validation", "test")])
@pytest.mark.parametrize("inside", ["", "c0/"])
def test_parts_of_a_data_set_are_no_classes(tmp_path, parts, inside):
    for part in parts:
        folder_of(tmp_path / "data" / part / inside, noise(2))
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / "data", PLAIN)
    named = caught.value.remedy.rsplit(" ", 1)[1]
    assert len(open_source(type(tmp_path)(named), PLAIN)) == 2
    folder_of(tmp_path / "data" / "cats", noise(2))
    assert len(open_source(tmp_path / "data", PLAIN).classes) == len(parts) + 1
