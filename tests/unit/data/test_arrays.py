"""Images in an .npz: accepted and refused files; nothing is unpickled, and no header alone causes an allocation."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from emca_deploy.artifacts import Preprocessing
from emca_deploy.data import arrays
from emca_deploy.data.sources import open_source
from emca_deploy.errors import DataError
from zoo.images import preprocess

SMALL = Preprocessing(4, 5)
FLOATS = np.random.default_rng(0).normal(size=(6, 3, 4, 4)).astype(np.float32)
BYTES = np.random.default_rng(0).integers(0, 256, (6, 9, 7, 3), np.uint8)
LABELS = np.array([2, 0, 1, 1, 0, 2])


def saved(tmp_path, save=np.savez, **named):
    path = tmp_path / "data.npz"
    save(path, **named)
    return path


def refusal(path, preprocessing=SMALL):
    with pytest.raises(DataError) as caught:
        open_source(path, preprocessing)
    assert str(path) in caught.value.problem
    assert caught.value.problem.isprintable()
    assert caught.value.exit_code == 2
    return caught.value.problem


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floats_are_used_as_they_are(tmp_path, save, order):
    source = open_source(saved(tmp_path, save, images=np.asarray(FLOATS, order=order)), SMALL)
    assert len(source) == 6
    assert (source.labels, source.classes) == (None, ())
    got = np.concatenate([images for images, _ in source.batches(4)])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, FLOATS)
    assert source.load(0).flags.c_contiguous
    assert source.item_name(2) == "images[2]"


def test_what_is_loaded_can_be_changed_without_changing_the_source(tmp_path):
    source = open_source(saved(tmp_path, images=FLOATS), SMALL)
    source.load(0)[:] = 7
    np.testing.assert_array_equal(source.load(0), FLOATS[0])


def test_bytes_are_preprocessed(tmp_path):
    source = open_source(saved(tmp_path, images=BYTES), SMALL)
    np.testing.assert_array_equal(source.load(3), preprocess(Image.fromarray(BYTES[3]), SMALL))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_labels_of_any_integer_become_int64(tmp_path, dtype):
    source = open_source(saved(tmp_path, images=BYTES, labels=LABELS.astype(dtype)), SMALL)
    assert source.labels is not None
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == LABELS.tolist()
    assert source.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (LABELS[:5], "for 6 images"),
        (LABELS[:, None], "for 6 images"),
        (LABELS.astype(np.float32), "float32"),
        (LABELS.astype(bool), "bool"),
        (LABELS.astype("U1"), "U1"),
        (LABELS - 1, "-1 is not a class index"),
        (LABELS.astype(np.uint64) + np.uint64(1 << 63), "class index"),
        (LABELS + (1 << 40), "class index"),
        (LABELS.astype(object), "Python objects"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, labels, why):
    assert why in refusal(saved(tmp_path, images=BYTES, labels=labels))


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (FLOATS[0], "shape (3, 4, 4)"),
        (FLOATS[:, :1], "shape (6, 1, 4, 4)"),
        (FLOATS.transpose(0, 2, 3, 1), "shape (6, 4, 4, 3)"),
        (BYTES.transpose(0, 3, 1, 2), "shape (6, 3, 9, 7)"),
        (BYTES[..., :2], "shape (6, 9, 7, 2)"),
        (FLOATS.astype(np.float64), "float64"),
        (FLOATS.astype(np.float16), "float16"),
        (BYTES.astype(np.int64), "int64"),
        (np.float32(3), "shape ()"),
        (FLOATS[:0], "has no images"),
        (BYTES[:, :0], "has no images"),
        (BYTES.astype(object), "Python objects"),
    ],
)
def test_images_of_another_kind_are_refused(tmp_path, images, why):
    assert why in refusal(saved(tmp_path, images=images))


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = saved(tmp_path, images=np.array([Trap()], dtype=object))
    assert "Python objects" in refusal(path)
    assert not (tmp_path / "sprung").exists()
    np.load(path, allow_pickle=True)["images"]
    assert (tmp_path / "sprung").exists()  # unpickling the file does run its code


def test_floats_of_another_size_say_both_sizes(tmp_path):
    problem = refusal(saved(tmp_path, images=FLOATS), Preprocessing())
    assert "4x4" in problem
    assert "224x224" in problem
    assert "4x3" in refusal(saved(tmp_path, images=FLOATS[..., :3]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_name_the_image(tmp_path, value):
    images = FLOATS.copy()
    images[4, 1, 2, 3] = value
    assert "image 4 has NaN or infinite" in refusal(saved(tmp_path, images=images))


def test_an_npz_without_images_says_what_it_has(tmp_path):
    assert "has no array 'images' (it has x, y)" in refusal(saved(tmp_path, y=LABELS, x=LABELS))
    assert "(it has nothing)" in refusal(saved(tmp_path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.98])
def test_truncated_files_are_refused(tmp_path, save, keep):
    path = saved(tmp_path, save, images=FLOATS)
    content = path.read_bytes()
    path.write_bytes(content[: keep if keep in (0, 3) else int(len(content) * keep)])
    assert "not a zip file, or truncated" in refusal(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_is_found(tmp_path, save):
    path = saved(tmp_path, save, images=np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    assert "array 'images' cannot be read" in refusal(path)


def with_header(tmp_path, header, data=b"", compression=zipfile.ZIP_STORED):
    member = io.BytesIO()
    member.write(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + data)
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("images.npy", member.getvalue())
    return path


def test_a_header_that_promises_more_than_there_is_allocates_nothing(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 3, 4, 4)}\n"
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = with_header(tmp_path, header, b"\0" * 100, compression)
        tracemalloc.start()
        assert "not as long as its header says" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
        tracemalloc.stop()


@pytest.mark.parametrize(
    "header",
    [
        b"", b"\n", b"{", b"{}", b"(" * 9000, b"__import__('os')", b"{[]: 1}", b" 1\n  2\n 3\n",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -3, 4, 4)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': 3}", b"{'descr': 'what', 'fortran_order': False, 'shape': (1,)}",
    ],
)  # fmt: skip
def test_nonsense_for_a_header_is_refused(tmp_path, header):
    refusal(with_header(tmp_path, header, b"\0" * 192))


def test_a_member_that_is_no_array_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"not an array")
    assert "array 'images' cannot be read" in refusal(path)


def test_bombs_are_refused(tmp_path):
    path = saved(tmp_path, np.savez_compressed, images=np.zeros((200, 224, 224, 3), np.uint8))
    assert "as a zip bomb is" in refusal(path)


def test_compressed_arrays_that_would_fill_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_UNPACKED_BYTES", 1000)
    path = saved(tmp_path, np.savez_compressed, images=FLOATS)
    assert "is compressed and larger than" in refusal(path)
    assert len(open_source(saved(tmp_path, np.savez, images=FLOATS), SMALL)) == 6


def test_uncompressed_arrays_are_not_read_into_memory(tmp_path):
    path = saved(tmp_path, images=np.ones((300, 3, 128, 128), np.float32))  # 56 MiB
    tracemalloc.start()
    source = open_source(path, Preprocessing(128, 128))
    source.load(299)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_the_identity_is_of_the_values_not_of_the_file(tmp_path):
    def identity(save=np.savez, **named):
        return open_source(saved(tmp_path, save, **named), SMALL).identity()

    plain = identity(images=FLOATS)
    assert identity(np.savez_compressed, images=FLOATS) == plain
    assert identity(images=np.asfortranarray(FLOATS)) == plain
    others = [identity(images=FLOATS[::-1]), identity(images=FLOATS[:5]), identity(images=FLOATS, labels=LABELS)]
    assert len({plain, *others, identity(images=FLOATS, labels=np.roll(LABELS, 1))}) == 5


@pytest.mark.parametrize(("channels", "count"), [("gray", 1), ("bgr", 3)])
def test_bytes_of_one_channel_and_of_three_are_preprocessed_alike(tmp_path, channels, count):
    used = Preprocessing(5, 5, (0.5,) * count, (1.0,) * count, channels=channels)
    gray = np.repeat(BYTES[..., :1], 3, axis=3)
    sources = []
    for name, images in (("one", gray[..., :1]), ("three", gray)):
        (tmp_path / name).mkdir()
        sources.append(open_source(saved(tmp_path / name, images=images), used))
    assert sources[0].load(2).shape == used.shape
    np.testing.assert_array_equal(sources[0].load(2), sources[1].load(2))
