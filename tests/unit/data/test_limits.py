"""Sizes and counts from which data is refused, looked at in part, or not kept."""

import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.artifacts import Preprocessing
from emca_deploy.data import decoded as decoded_module
from emca_deploy.data.archives import _check_members
from emca_deploy.data.arrays import _read_member
from emca_deploy.data.decoded import Decoded, room_for_decoded
from emca_deploy.data.image_checks import calibration_warnings, image_digests, shared_images
from emca_deploy.data.label_files import LabelFile
from emca_deploy.data.labels import MAX_CLASSES
from emca_deploy.data.preprocess import to_rgb
from emca_deploy.data.preprocessing_files import read_preprocessing_file
from emca_deploy.data.sources import ImageSource, open_source
from emca_deploy.errors import DataError, InputError


def member(name, size, packed):
    info = zipfile.ZipInfo(name)
    info.file_size, info.compress_size = size, packed
    return info


@pytest.mark.parametrize(
    ("count", "size", "packed", "refused"),
    [
        (1024, 64 << 20, 1 << 20, False),
        (1025, 64 << 20, 1 << 20, True),  # 64 GiB together
        (1, (64 << 20) + 1, 1 << 20, True),
        (1, 1000 * 500, 500, False),
        (1, 1000 * 500 + 1, 500, True),
        (1, 1000, 0, False),
        (1, 1001, 0, True),
    ],
)
def test_members_of_archives(count, size, packed, refused):
    members = [member(f"{number}.png", size, packed) for number in range(count)]
    if refused:
        with refusing(DataError, "data.zip"):
            _check_members(Path("data.zip"), members)
        return
    _check_members(Path("data.zip"), members)


@pytest.mark.parametrize(("extra", "words"), [(1, "4 GiB"), (0, "cannot be read")])
def test_compressed_arrays_of_more_than_four_gib_are_refused(tmp_path, extra, words):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": ((4 << 30) + extra - 128,)})
    assert len(stream.getvalue()) == 128
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", stream.getvalue())
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        info = archive.getinfo("images.npy")
        info.file_size, info.compress_size = (4 << 30) + extra, 5 << 20
        with pytest.raises(DataError, match=words):
            _read_member(tmp_path / "a.npz", archive, info)


@pytest.mark.parametrize(("read", "most_mib", "error"), [(LabelFile, 256, DataError), (read_preprocessing_file, 16, InputError)])
def test_files_of_text_have_a_largest_size(tmp_path, read, most_mib, error):
    path = tmp_path / "file"
    with path.open("wb") as stream:
        stream.truncate((most_mib << 20) + 1)
    with refusing(error, f"{most_mib} MiB"):
        read(path)


class Many(ImageSource):
    """Images of one value each, and the numbers of those that were loaded."""

    name, labelled, preprocessing = "many", None, Preprocessing(2, 2)

    def __init__(self, values):
        self.values, self.loaded = values, []

    def image_size(self, index):
        return 2, 2

    def __len__(self):
        return len(self.values)

    def pixels(self, index):
        self.loaded.append(index)
        return np.full((3, 2, 2), self.values[index], np.float32)

    def item_name(self, index):
        return str(index)

    def identity(self):
        return ""

    def size(self, index):
        return len(self.content(index))

    def content(self, index):
        return str(self.values[index]).encode()


@pytest.mark.parametrize(("count", "warned"), [(1, 1), (7, 1), (8, 0), (200, 0)])
def test_calibration_needs_eight_images_and_64_are_looked_at(count, warned):
    source = Many(range(count))
    source.pixels = lambda index, own=source.pixels: own(index) + np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    assert len(calibration_warnings(source, range(count))) == warned
    assert source.loaded == ([] if count < 8 else list(range(0, count, max(1, count // 64)))[:64])


@pytest.mark.parametrize(("flat", "warned"), [(10, 0), (11, 1), (20, 1)])
def test_more_than_half_of_one_colour_is_a_warning(flat, warned):
    source = Many(range(20))
    plain = source.pixels
    source.pixels = lambda index: plain(index) + (np.arange(12, dtype=np.float32).reshape(3, 2, 2) if index >= flat else 0)
    assert len(calibration_warnings(source, range(20))) == warned


def test_4096_digests_are_kept():
    source = Many(range(5000))
    found = image_digests(source, range(5000))
    assert len(found) == 4096
    assert found == sorted(found)
    assert image_digests(Many([7, 7, 7]), range(3)) == image_digests(Many([7]), [0])
    assert shared_images(Many([1, 2, 12]), range(3), image_digests(Many([2, 5]), range(2))) == 1


@pytest.mark.parametrize(("free", "kept"), [(2 * 432, True), (2 * 432 - 1, False)])
def test_decoded_images_take_half_of_the_free_space(tmp_path, monkeypatch, free, kept):
    monkeypatch.setattr(decoded_module, "shutil", SimpleNamespace(disk_usage=lambda folder: SimpleNamespace(free=free)))
    with room_for_decoded(tmp_path, 1, Preprocessing(12, 12)) as room:
        assert (room is not None) is kept


def test_decoded_images_have_the_facts_of_their_source(tmp_path):
    source = Many([3, 5])
    with room_for_decoded(tmp_path, 2, source.preprocessing) as room:
        decoded = Decoded(source, room, [1, 0])
        assert [decoded.size(1), decoded.content(1), decoded.item_name(1), len(decoded)] == [1, b"5", "1", 2]
        for _ in range(2):
            np.testing.assert_array_equal(decoded.pixels(1), np.full((3, 2, 2), 5))
        assert source.loaded == [1]
        assert (decoded._pixels.dtype, decoded._done.tolist()) == (np.uint8, [1, 0])


@pytest.mark.parametrize(("value", "eight_bits"), [(0, 0), (128, 0), (129, 1), (385, 1), (386, 2), (65535, 255), (65406, 254)])
def test_sixteen_bits_become_eight_by_rounding(value, eight_bits):
    from PIL import Image

    assert np.asarray(to_rgb(Image.fromarray(np.full((1, 1), value, np.int32)))).ravel().tolist() == [eight_bits] * 3


@pytest.mark.parametrize("value", [-1, 65536])
def test_pixels_without_a_range_are_refused(value):
    from PIL import Image

    with pytest.raises(ValueError, match="range"):
        to_rgb(Image.fromarray(np.full((1, 1), value, np.int32)))


@pytest.mark.parametrize(("label", "refused"), [(MAX_CLASSES - 1, False), (MAX_CLASSES, True), (-1, True)])
def test_labels_of_arrays(tmp_path, label, refused):
    assert MAX_CLASSES == 2**20
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 3, 2, 2), np.float32), labels=np.array([0, label]))
    if refused:
        with refusing(DataError, label):
            open_source(tmp_path / "a.npz", Preprocessing(2, 2))
        return
    assert open_source(tmp_path / "a.npz", Preprocessing(2, 2)).labels.tolist() == [0, label]


@pytest.mark.parametrize(("batch", "threads"), [(0, 1), (1, 0)])
def test_batches_have_images_and_threads(batch, threads):
    with refusing(InputError, batch, threads):
        Many([1]).batches(batch, threads=threads)
    assert [len(images) for images, labels in Many(range(5)).batches(2)] == [2, 2, 1]
