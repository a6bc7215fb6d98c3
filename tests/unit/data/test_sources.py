"""Folders and zips of images: classes, order, identity, batches."""

import gc
import io
import os
import threading
import time
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import refusing

from emca_deploy.artifacts import Preprocessing
from emca_deploy.data.sources import ImageSource, open_source
from emca_deploy.errors import DataError, InputError

PLAIN = Preprocessing(4, 4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def put(root, *names, value=None):
    """Write a 4x4 gray image for each name; its pixel value identifies it."""
    for position, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), position if value is None else value).save(path)


def zipped(folder, to):
    with zipfile.ZipFile(to, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder).as_posix())
    return to


@pytest.fixture(params=["folder", "zip"])
def open_as(request, tmp_path):
    """Open a folder directly or zipped."""

    def opened(folder, preprocessing=PLAIN):
        if request.param == "folder":
            return open_source(folder, preprocessing)
        return open_source(zipped(folder, tmp_path / "zipped.zip"), preprocessing)

    return opened


def names_of(source):
    return [source.item_name(index) for index in range(len(source))]


def values_of(source):
    return [round(float(source.load(index)[0, 0, 0]) * 255) for index in range(len(source))]


def test_subfolders_are_classes_sorted_by_name(tmp_path, open_as):
    put(tmp_path / "d", "dog/b.png", "cat/z.jpg", "dog/a.PNG", "bird/deep/er/1.bmp")
    source = open_as(tmp_path / "d")
    assert source.classes == ("bird", "cat", "dog")
    assert names_of(source) == ["bird/deep/er/1.bmp", "cat/z.jpg", "dog/a.PNG", "dog/b.png"]
    assert source.labels is not None
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0, 1, 2, 2]
    assert values_of(source) == [3, 1, 2, 0]


def test_classes_that_are_all_numbers_are_sorted_as_numbers(tmp_path, open_as):
    put(tmp_path / "d", "10/a.png", "9/a.png", "0/a.png", "100/a.png")
    source = open_as(tmp_path / "d")
    assert source.classes == ("0", "9", "10", "100")
    assert values_of(source) == [2, 1, 0, 3]
    put(tmp_path / "d", "x/a.png")
    assert open_as(tmp_path / "d").classes == ("0", "10", "100", "9", "x")


def test_a_flat_folder_has_no_labels(tmp_path, open_as):
    put(tmp_path / "d", "b.png", "a.png")
    source = open_as(tmp_path / "d")
    assert (source.classes, source.labels) == ((), None)
    assert names_of(source) == ["a.png", "b.png"]
    ((images, labels),) = source.batches(8)
    assert images.shape == (2, 3, 4, 4)
    assert labels is None


def test_hidden_files_and_other_files_are_left_out(tmp_path, open_as):
    put(tmp_path / "d", "a/1.png", "a/._1.png", "b/1.png", ".git/1.png", "__MACOSX/a/1.png", "a/.cache/2.png")
    for name in ("LICENSE", "a/notes.txt", "b/Thumbs.db", "index.csv"):
        (tmp_path / "d" / name).write_text("x")
    source = open_as(tmp_path / "d")
    assert names_of(source) == ["a/1.png", "b/1.png"]
    assert source.classes == ("a", "b")


def test_one_folder_around_the_class_folders_is_taken_off(tmp_path, open_as):
    put(tmp_path / "d", "top/a/1.png", "top/b/1.png")
    (tmp_path / "d" / "top" / "README.txt").write_text("x")
    source = open_as(tmp_path / "d")
    assert source.classes == ("a", "b")
    assert names_of(source) == ["a/1.png", "b/1.png"]
    assert values_of(source) == [0, 1]


def test_one_folder_around_a_flat_zip_is_taken_off_but_in_a_folder_it_is_a_class(tmp_path):
    put(tmp_path / "d", "photos/1.png", "photos/2.png")
    source = open_source(zipped(tmp_path / "d", tmp_path / "d.zip"), PLAIN)
    assert (source.classes, names_of(source)) == ((), ["1.png", "2.png"])
    assert open_source(tmp_path / "d", PLAIN).classes == ("photos",)


def test_an_image_beside_class_folders_is_refused(tmp_path, open_as):
    put(tmp_path / "d", "a/1.png", "b/1.png", "stray.png")
    with refusing(DataError, tmp_path, "'stray.png'"):
        open_as(tmp_path / "d")


def test_a_class_folder_without_images_is_refused_rather_than_shifting_labels(tmp_path, open_as):
    put(tmp_path / "d", "a/1.png", "c/1.png")
    (tmp_path / "d" / "b").mkdir()
    with refusing(DataError, tmp_path, "'b'"):
        open_as(tmp_path / "d")


def test_a_flat_folder_may_have_folders_without_images_in_it(tmp_path, open_as):
    put(tmp_path / "d", "1.png")
    (tmp_path / "d" / "docs").mkdir()
    (tmp_path / "d" / "docs" / "a.txt").write_text("x")
    assert names_of(open_as(tmp_path / "d")) == ["1.png"]


def test_a_data_set_without_images_is_refused(tmp_path, open_as):
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "x.txt").write_text("x")
    with refusing(DataError, tmp_path) as caught:
        open_as(tmp_path / "d")
    assert ".png" in caught.value.remedy


def test_what_is_no_data_set_is_refused(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"x")
    (tmp_path / "x.zip.txt").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.zip")
    for name in ("missing", "x.tar", "x.zip.txt", "pipe.zip", "n" * 300, "x.tar/below"):
        with pytest.raises(DataError) as caught:
            open_source(tmp_path / name, PLAIN)
        assert name in caught.value.problem
        assert ".npz" in caught.value.remedy


def test_links_are_followed_but_not_in_circles(tmp_path):
    put(tmp_path / "elsewhere", "1.png")
    put(tmp_path / "d", "a/1.png")
    (tmp_path / "d" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d" / "a" / "round").symlink_to(tmp_path / "d" / "a")
    (tmp_path / "d" / "a" / "broken.png").symlink_to(tmp_path / "nothing")
    assert names_of(open_source(tmp_path / "d", PLAIN)) == ["a/1.png", "b/1.png"]


def test_special_files_named_as_images_are_left_out(tmp_path):
    put(tmp_path, "1.png")
    os.mkfifo(tmp_path / "2.png")
    assert names_of(open_source(tmp_path, PLAIN)) == ["1.png"]


def test_a_damaged_image_is_named(tmp_path, open_as):
    put(tmp_path / "d", "a/1.png", "a/2.png")
    damaged = tmp_path / "d" / "a" / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:45])
    source = open_as(tmp_path / "d")
    source.load(0)
    with refusing(DataError, "a/2.png"):
        source.load(1)


def test_an_image_that_vanished_is_named(tmp_path):
    put(tmp_path, "1.png")
    source = open_source(tmp_path, PLAIN)
    (tmp_path / "1.png").unlink()
    with refusing(DataError, tmp_path / "1.png"):
        source.load(0)


def test_the_size_of_a_decoded_image_takes_no_second_look_at_its_file(tmp_path):
    put(tmp_path, "1.png", "2.png")
    source = open_source(tmp_path, Preprocessing(2, 8, (0.0,) * 3, (1.0,) * 3))
    source.load(0)
    for path in tmp_path.iterdir():
        path.unlink()
    assert source.image_size(0) == (4, 4)
    with refusing(DataError, tmp_path / "2.png"):
        source.image_size(1)


def test_names_from_hostile_archives_do_not_reach_the_terminal_raw(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("\x1b[31m\n.png", b"no image")
    with pytest.raises(DataError) as caught:
        open_source(tmp_path / "d.zip", PLAIN).load(0)
    assert caught.value.problem.isprintable()


def test_a_file_name_that_is_not_utf8_works(tmp_path):
    put(tmp_path, "1.png")
    os.rename(bytes(tmp_path / "1.png"), bytes(tmp_path) + b"/\xff.png")  # noqa: PTH104
    source = open_source(tmp_path, PLAIN)
    assert len(source.identity()) == 64
    assert values_of(source) == [0]


def test_a_folder_and_its_zip_wrapped_or_not_have_one_identity(tmp_path):
    put(tmp_path / "w" / "d", "a/1.png", "b/2.png")
    sources = [
        open_source(tmp_path / "w" / "d", PLAIN),
        open_source(zipped(tmp_path / "w" / "d", tmp_path / "plain.zip"), PLAIN),
        open_source(zipped(tmp_path / "w", tmp_path / "wrapped.zip"), PLAIN),
    ]
    assert len({source.identity() for source in sources}) == 1
    assert [source.name for source in sources] == ["d", "plain.zip", "wrapped.zip"]


def test_a_folder_of_one_class_and_a_zip_of_one_folder_differ(tmp_path):
    put(tmp_path / "d", "only/1.png", "only/2.png")
    assert open_source(tmp_path / "d", PLAIN).classes == ("only",)
    assert open_source(zipped(tmp_path / "d", tmp_path / "d.zip"), PLAIN).labels is None


def test_the_identity_changes_with_a_name_a_class_or_a_byte(tmp_path):
    variants = {"plain": ("a/1.png", 7), "name": ("a/2.png", 7), "class": ("b/1.png", 7), "byte": ("a/1.png", 8)}
    for folder, (name, value) in variants.items():
        put(tmp_path / folder, name, value=value)
    assert len({open_source(tmp_path / folder, PLAIN).identity() for folder in variants}) == len(variants)


@pytest.fixture
def twenty(tmp_path):
    put(tmp_path / "twenty", *(f"{'ab'[i % 2]}/{i:02d}.png" for i in range(20)))
    return open_source(tmp_path / "twenty", PLAIN)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 3, 20, 64])
def test_batches_come_in_order_and_complete(twenty, batch_size, threads):
    got = list(twenty.batches(batch_size, threads=threads))
    assert [len(images) for images, _ in got] == [min(batch_size, 20 - start) for start in range(0, 20, batch_size)]
    images = np.concatenate([images for images, _ in got])
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, np.stack([twenty.load(index) for index in range(20)]))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in got]), twenty.labels)


@pytest.mark.parametrize("kind", [list, np.array])
def test_batches_of_chosen_images_keep_the_order_asked_for(twenty, kind):
    got = list(twenty.batches(2, kind([7, 3, 15])))
    np.testing.assert_array_equal(np.concatenate([images for images, _ in got]), np.stack([twenty.load(i) for i in (7, 3, 15)]))
    assert np.concatenate([labels for _, labels in got]).tolist() == [twenty.labels[i] for i in (7, 3, 15)]
    assert list(twenty.batches(2, [])) == []


def test_batches_refuse_nonsense_at_once(twenty):
    for arguments in ({"batch_size": 0}, {"batch_size": 1, "threads": 0}):
        with refusing(InputError):
            twenty.batches(**arguments)


def decoding_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


class Counting(ImageSource):
    """Source that counts loads; image 13 is broken on request."""

    name, preprocessing, labelled = "counting", PLAIN, None

    def __init__(self, broken=None):
        self.loaded = []
        self.broken = broken

    def image_size(self, index):
        return 2, 2

    def __len__(self):
        return 1000

    def load(self, index):
        if index == self.broken:
            raise DataError(f"image {index}", "remove it")
        self.loaded.append(index)
        return np.full((3, 4, 4), index, np.float32)

    pixels = load

    def item_name(self, index):
        return str(index)

    def identity(self):
        return ""

    def size(self, index):
        return 0

    def content(self, index):
        return b""


def test_no_more_than_a_batch_is_decoded_ahead():
    source = Counting()
    batches = source.batches(8, threads=2)
    assert source.loaded == []
    for taken in range(1, 6):
        next(batches)
        assert len(source.loaded) <= taken * 8 + 8 + 2
    batches.close()
    assert len(source.loaded) <= 5 * 8 + 8 + 2


def test_closing_cancels_what_was_decoded_ahead():
    class Slow(Counting):
        def load(self, index):
            if index >= 64:
                time.sleep(0.02)
            return super().load(index)

    source = Slow()
    batches = source.batches(64, threads=1)
    next(batches)
    batches.close()
    assert len(source.loaded) < 64 + 64  # the rest is 65 images


@pytest.mark.parametrize("end", ["close", "drop", "error", "exhaust"])
def test_no_thread_is_left_whatever_ends_the_batches(end):
    source = Counting(broken=13 if end == "error" else None)
    batches = source.batches(8, threads=3)
    next(batches)
    assert decoding_threads()
    if end == "close":
        batches.close()
    elif end == "drop":
        del batches
        gc.collect()
    elif end == "error":
        with pytest.raises(DataError, match="image 13"):
            next(batches)
        assert max(source.loaded) < 13 + 8 + 3
    else:
        assert sum(len(images) for images, _ in batches) == 992
    assert decoding_threads() == []


def sound(kind):
    """Return the bytes of two images in a compressed zip, or of one in a plain or compressed .npz."""
    stream = io.BytesIO()
    if kind != "zip":
        save = np.savez_compressed if kind == "packed" else np.savez
        save(stream, images=np.random.default_rng(0).integers(0, 256, (1, 9, 7, 3), np.uint8), labels=[2])
        return bytearray(stream.getvalue())
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for value, name in enumerate(("a/1.png", "b/2.png")):
            with archive.open(name, "w") as member:
                Image.new("L", (4, 4), value).save(member, "PNG")
    return bytearray(stream.getvalue())


@pytest.mark.parametrize("kind", ["zip", "npz", "packed"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_damage_raises_anything_but_a_data_error(tmp_path, kind, damage):
    content = sound(kind)
    for place, value in damage:
        content[place % len(content)] = value
    path = tmp_path / ("damaged.zip" if kind == "zip" else "damaged.npz")
    path.write_bytes(content)
    problem = ""
    try:
        source = open_source(path, PLAIN)
        for index in range(len(source)):
            source.load(index)
        source.identity()
    except DataError as error:
        problem = error.problem
    assert problem.isprintable()
