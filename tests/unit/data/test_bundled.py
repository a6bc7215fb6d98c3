"""The bundled sample matches its README and is reproduced by its script."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.data import bundled
from emca_deploy.data.bundled import BUNDLED_PREPROCESSING, bundled_calibration_images, bundled_test_images
from emca_deploy.data.sources import open_source
from emca_deploy.errors import MissingError

ORIGINAL = Path("/usr/share/datasets/fashion-mnist")
SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "make_bundled_sample.py"


def test_the_test_images_are_two_hundred_of_each_of_ten_classes():
    source = open_source(bundled_test_images(), BUNDLED_PREPROCESSING)
    assert source.classes[0] == "0_t-shirt_top"
    assert source.classes[9] == "9_ankle_boot"
    assert source.labels is not None
    assert np.bincount(source.labels).tolist() == [200] * 10
    images = np.concatenate([images for images, _ in source.batches(256)])
    assert images.shape == (2000, 3, 64, 64)
    assert abs(float(images.mean())) < 0.05
    assert abs(float(images.std()) - 1) < 0.05


def test_the_calibration_images_are_balanced():
    source = open_source(bundled_calibration_images(), BUNDLED_PREPROCESSING)
    assert source.labels is not None
    assert len(source) == 512
    assert set(np.bincount(source.labels).tolist()) == {51, 52}
    assert source.load(511).shape == (3, 64, 64)


def test_both_zips_carry_the_licence():
    for path in (bundled_test_images(), bundled_calibration_images()):
        with zipfile.ZipFile(path) as archive:
            assert b"Copyright (c) 2017 Zalando SE" in archive.read("LICENSE-fashion-mnist.txt")


def test_a_bundled_file_that_is_not_there_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "_FOLDER", tmp_path)
    for find in (bundled.bundled_checkpoint, bundled_test_images, bundled_calibration_images):
        with refusing(MissingError, tmp_path):
            find()


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason="needs Fashion-MNIST (Debian: dataset-fashion-mnist)")
def test_the_script_makes_the_bundled_zips(tmp_path):
    subprocess.run([sys.executable, str(SCRIPT), "--data", str(ORIGINAL), "--output", str(tmp_path)], check=True)
    for path in (bundled_test_images(), bundled_calibration_images()):
        made, there = (open_source(p, BUNDLED_PREPROCESSING) for p in (tmp_path / path.name, path))
        assert [made.item_name(i) for i in range(len(made))] == [there.item_name(i) for i in range(len(there))]
        for index in range(0, len(made), 37):  # pixels, not bytes: another Pillow may encode a PNG differently
            np.testing.assert_array_equal(made.load(index), there.load(index))
