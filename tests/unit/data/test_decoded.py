"""Images are decoded once for all readers, and every reader gets the same images."""

import numpy as np
import pytest

from emca_deploy.data import decoded as decoded_module
from emca_deploy.data.decoded import Decoded, room_for_decoded
from emca_deploy.data.sources import open_source
from emca_deploy.preprocessing import Preprocessing

SQUARE = Preprocessing(12, 14)
LETTERBOX = Preprocessing((12, 20), (12, 20), resize="letterbox", pad_value=114.5)
GRAY = Preprocessing(12, 14, channels="gray", mean=(0.5,), std=(0.25,))


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(6):
        path = tmp_path / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + index, 17, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def whole(source, indices=None):
    return [images for images, _ in source.batches(2, indices)]


def damage(folder):
    """Replace the contents by undecodable bytes of the same names and sizes."""
    for path in folder.rglob("*.png"):
        path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("preprocessing", [SQUARE, LETTERBOX, GRAY])
def test_the_second_run_sees_the_same_without_decoding(folder, tmp_path, preprocessing):
    source = open_source(folder, preprocessing)
    expected = whole(source)
    with room_for_decoded(tmp_path, len(source), preprocessing) as room:
        for _ in range(2):
            found = whole(Decoded(open_source(folder, preprocessing), room, range(6)))
            damage(folder)
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_run_that_stopped_halfway_leaves_what_it_decoded(folder, tmp_path):
    source, chosen = open_source(folder, SQUARE), [5, 1, 2]
    expected = whole(source, chosen)
    with room_for_decoded(tmp_path, 3, SQUARE) as room:
        Decoded(source, room, chosen).pixels(5)
        (folder / "b" / "5.png").write_bytes(b"")
        for ours, theirs in zip(whole(Decoded(source, room, chosen), chosen), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_labels_names_and_digests_are_those_of_the_images(folder, tmp_path):
    source = open_source(folder, SQUARE)
    with room_for_decoded(tmp_path, 6, SQUARE) as room:
        decoded = Decoded(source, room, range(6))
        assert (len(decoded), decoded.classes, decoded.identity()) == (6, source.classes, source.identity())
        np.testing.assert_array_equal(decoded.labels, source.labels)
        assert [decoded.item_name(index) for index in range(6)] == [source.item_name(index) for index in range(6)]


def test_there_is_no_room_where_the_disk_is_too_small(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_module, "MOST_OF_FREE", 0.0)
    with room_for_decoded(tmp_path, 6, SQUARE) as room:
        assert room is None
    with room_for_decoded(tmp_path / "nowhere", 6, SQUARE) as room:
        assert room is None
