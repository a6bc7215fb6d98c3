"""Images that arrive over time: frames cut out of a stream, groups, and the new files of a folder."""

import io
import os
import queue
import threading

import pytest
from PIL import Image

from emca_deploy.data.streams import in_groups, jpeg_frames, watched
from emca_deploy.errors import DataError


def jpeg(colour: int, **options) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((40, 30), 80).convert("RGB").point(lambda value: (value + colour) % 256).save(out, "JPEG", **options)
    return out.getvalue()


THUMBNAIL = b"\xff\xe1\x00\x0a" + b"\xff\xd8\xff\xd9" + b"abcd"
"""A segment with the markers of an image in it, as EXIF has them around a thumbnail."""

FRAMES = [jpeg(0), jpeg(70, progressive=True), jpeg(140, quality=95), jpeg(9, restart_marker_blocks=1)]
FRAMES.append(FRAMES[0][:2] + THUMBNAIL + FRAMES[0][2:])


def reader(data: bytes, piece: int):
    stream = io.BytesIO(data)
    return lambda size: stream.read(min(size, piece))


@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize("between", [b"", b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n", b"\xff\xd8", b"\xff"])
def test_frames_are_cut_out_whatever_the_pieces(piece, between):
    assert list(jpeg_frames(reader(between + between.join(FRAMES) + between, piece))) == FRAMES


def test_a_damaged_frame_ends_at_the_next_one_and_a_cut_one_at_the_end():
    damaged, cut = FRAMES[0][:-40], FRAMES[2][:-40]
    assert list(jpeg_frames(reader(damaged + FRAMES[1] + cut, 99))) == [damaged, FRAMES[1], cut]


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n", bytes(200_000)])
def test_a_stream_without_frames_is_refused(data):
    with pytest.raises(DataError):
        list(jpeg_frames(reader(data, 1 << 16)))


def test_groups_hold_what_has_arrived():
    source = queue.Queue()
    groups = in_groups(iter(source.get, None), 3)
    source.put(0)
    assert next(groups) == [0]
    for number in (*range(1, 8), None):
        source.put(number)
    rest = list(groups)
    assert [number for group in rest for number in group] == list(range(1, 8))
    assert max(map(len, rest)) <= 3


def test_an_error_of_the_source_comes_after_the_items_before_it():
    def source():
        yield 1
        raise DataError("a", "b")

    groups = in_groups(source(), 1)
    assert next(groups) == [1]
    with pytest.raises(DataError):
        next(groups)


def test_a_file_is_given_once_it_is_complete_and_again_when_it_changes(tmp_path):
    (tmp_path / "old.png").write_bytes(b"1")
    os.utime(tmp_path / "old.png", (1, 1))
    (tmp_path / "other.txt").write_bytes(b"1")
    found = watched(tmp_path, 0.01, 0.2)
    assert next(found) == [tmp_path / "old.png"]
    growing = tmp_path / "new.png"

    def write():
        for number in range(8):
            with growing.open("ab") as stream:
                stream.write(bytes([number]))
            threading.Event().wait(0.04)

    writer = threading.Thread(target=write)
    writer.start()
    assert next(found) == [growing]
    assert growing.stat().st_size == 8
    writer.join()
    (tmp_path / "old.png").write_bytes(b"22")
    assert next(found) == [tmp_path / "old.png"]
