"""A folder of images as one file: the same images in the same classes, and the same bytes every time."""

import os

import numpy as np
import pytest

from emca_deploy.artifacts import Preprocessing, sha256_file
from emca_deploy.data.sources import open_source
from emca_deploy.errors import DataError
from emca_deploy.targets.shipment import packed


def save(folder, *names):
    from PIL import Image

    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("a/1.png", "a/2.png", "b/1.png"),
        ("10/1.png", "9/1.png"),
        ("only/1.png", "only/2.png"),
        ("top/a/1.png", "top/b/2.png"),
        ("1.png", "2.png"),
        ("a/deep/er/1.png", "b/1.png"),
    ],
)
def test_nothing_changes_by_packing(tmp_path, names):
    folder = save(tmp_path / "val", *names)
    (folder / ".hidden").write_text("")
    used = Preprocessing(8, 8)
    here = open_source(folder, used)
    with packed(folder) as place:
        there = open_source(place, used)
        assert there.classes == here.classes
        assert (there.labels is None) == (here.labels is None)
        assert here.labels is None or list(there.labels) == list(here.labels)
        assert [there.item_name(i) for i in range(len(there))] == [here.item_name(i) for i in range(len(here))]
        assert all(np.array_equal(there.load(i), here.load(i)) for i in range(len(here)))
        first = sha256_file(place)
    assert not place.exists()
    (folder / names[0]).touch()
    with packed(folder) as place:
        assert sha256_file(place) == first


def test_what_is_no_data_set(tmp_path):
    for path in (tmp_path, tmp_path / "gone", tmp_path / "x.txt"):
        with pytest.raises(DataError), packed(path):
            pass


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    folder = save(tmp_path / "val", "a/1.png", "b/1.png")
    (folder / "b" / "1.png").rename(folder / "b" / os.fsdecode(b"\xff.png"))
    with pytest.raises(DataError), packed(folder):
        pass
