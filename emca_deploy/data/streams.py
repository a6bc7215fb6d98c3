"""Images that arrive over time: the frames of a camera, and the new files of a folder."""

import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from emca_deploy.data.given import images_in
from emca_deploy.errors import DataError
from emca_deploy.unchanged import Stamp, stamp_of

__all__ = ["in_groups", "jpeg_frames", "watched"]

SETTLED_S = 0.5
"""Time for which a new file must be unchanged: a program that writes it slowly pauses less."""

POLL_S = 0.1
LARGEST_FRAME = 64 << 20
_PIECE = 1 << 16
_START = re.compile(rb"\xff\xd8\xff[^\xd8]", re.DOTALL)
_IMAGE_START, _IMAGE_END = 0xD8, 0xD9
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]", re.DOTALL)
"""Markers that have a length or are the image's first or last; 0xFF before others is data, padding or a restart."""

_Item = TypeVar("_Item")


def jpeg_frames(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the JPEG images in a stream of them, such as Motion JPEG; bytes between them are left out.

    `read` returns at most the given number of bytes, and none at the end. A frame that the end cuts off is yielded as it is, and
    one that is damaged ends at the next one. Segments are followed by their lengths, so that a thumbnail ends no frame.

    Raises:
        DataError: the stream has no JPEG image, or a frame is larger than 64 MiB.
    """
    buffer, found = bytearray(), False
    while piece := read(_PIECE):
        buffer += piece
        while start := _START.search(buffer):
            del buffer[: start.start()]
            end = _end_of(buffer)
            if end is None:
                break
            yield bytes(buffer[:end])
            found = True
            del buffer[:end]
        else:
            del buffer[:-3]  # less than a start
        if len(buffer) > LARGEST_FRAME:
            raise DataError("standard input: has a frame of more than 64 MiB", "send Motion JPEG")
    if _START.match(buffer):
        yield bytes(buffer)
    elif not found:
        remedy = "send Motion JPEG, for example: ffmpeg -i VIDEO -f mjpeg -q:v 2 - | emca-deploy run BUNDLE -"
        raise DataError("standard input: has no JPEG image", remedy)


def _end_of(data: bytearray) -> int | None:
    """Return where the JPEG image at the beginning of `data` ends; None where more bytes are needed."""
    place = 2
    while found := _MARKER.search(data, place):
        place, marker = found.start(), data[found.start() + 1]
        if marker == _IMAGE_END:
            return place + 2
        if marker == _IMAGE_START:  # another image begins: this one is damaged
            return place
        if place + 4 > len(data):
            return None
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def in_groups(items: Iterator[_Item], most: int) -> Iterator[list[_Item]]:
    """Yield what has arrived since the last group, 1 to `most` items; a thread reads ahead.

    A slow source gives groups of one without delay, and a fast one full groups. Errors of `items` are raised.
    """
    arrived: queue.Queue[_Item | BaseException | None] = queue.Queue(2 * most)

    def take() -> None:
        try:
            for item in items:
                arrived.put(item)
        except BaseException as error:  # raised where the items are used
            arrived.put(error)
        else:
            arrived.put(None)

    threading.Thread(target=take, name="frames", daemon=True).start()
    while True:
        group = [arrived.get()]
        while len(group) < most and not arrived.empty():
            group.append(arrived.get())
        images = [item for item in group if item is not None and not isinstance(item, BaseException)]
        if images:
            yield images
        if len(images) < len(group):  # nothing follows the end or an error
            error = group[len(images)]
            if isinstance(error, BaseException):
                raise error
            return


def watched(folder: Path, poll_s: float = POLL_S, settled_s: float = SETTLED_S) -> Iterator[list[Path]]:
    """Yield the images of a folder as they appear complete, those that are there first; it never ends by itself.

    A file is complete once it has been unchanged for `settled_s`. One that changes later is yielded again.

    Raises:
        DataError: the folder cannot be listed.
    """
    seen: dict[Path, tuple[Stamp, float]] = {}
    given: dict[Path, Stamp] = {}
    while True:
        now, ready = time.monotonic(), []
        present = _stamps(folder)
        for path, stamp in present.items():
            before, since = seen.get(path, (None, now))
            if before != stamp:
                since = now - min(settled_s, max(0.0, time.time() - stamp[0] / 1e9))  # an old file need not wait
            seen[path] = stamp, since
            if now - since >= settled_s and given.get(path) != stamp:
                given[path] = stamp
                ready.append(path)
        for known in (seen, given):
            for path in known.keys() - present.keys():
                del known[path]
        if ready:
            yield ready
        else:
            time.sleep(poll_s)


def _stamps(folder: Path) -> dict[Path, Stamp]:
    found = {}
    for path in images_in(folder):
        try:
            found[path] = stamp_of(path)
        except OSError:  # removed since it was listed
            continue
    return found
