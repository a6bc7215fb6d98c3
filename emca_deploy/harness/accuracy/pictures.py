"""Pictures of the images in which candidates differ most from their reference."""

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress

from emca_deploy.data.preprocess import decode
from emca_deploy.data.sources import ImageSource
from emca_deploy.errors import DataError
from emca_deploy.harness.accuracy.evaluation import Report
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.deploy import Picture
from emca_deploy.results.detection import DetectionReport

__all__ = ["FLIPS", "PICTURES", "pictures_of"]

PICTURES = 4
"""Most pictures of one candidate of a detector."""

FLIPS = 8
"""Most pictures of one candidate of a classifier."""

LONGEST_PX = 480
QUALITY = 90
FLIP_PX = 112
FLIP_QUALITY = 80


def pictures_of(source: ImageSource, reports: Sequence[Report], most: int = 100) -> tuple[Picture, ...]:
    """Return at most `most` pictures for the reports of several candidates on the same images.

    They show a detector's lost and gained detections, or a classifier's images whose class differs; an image of a classifier that
    cannot be read, or has another name than in the report, has none.

    Raises:
        DataError: an image of a detector cannot be read.
    """
    detected: dict[int, str] = {}
    flipped: dict[int, str] = {}
    for report in reports:
        if report.reference is None:
            continue
        if isinstance(report, DetectionReport):
            detected |= {index: flips[0].file for index, flips in report.reference.flips.by_image(PICTURES).items()}
        elif isinstance(report, AccuracyReport) and report.reference.flips is not None:
            flipped |= {flip.index: flip.file for flip in report.reference.flips.worst(FLIPS)}
    large = tuple(_picture(source, index, file, LONGEST_PX, QUALITY) for index, file in _first(detected, most))
    return large or _small(source, _first(flipped, most))


def _first(chosen: Mapping[int, str], most: int) -> list[tuple[int, str]]:
    return sorted(list(chosen.items())[:most])


def _small(source: ImageSource, chosen: Sequence[tuple[int, str]]) -> tuple[Picture, ...]:
    found = []
    for index, file in chosen:
        if source.finished or index >= len(source) or source.item_name(index) != file:
            continue
        with suppress(DataError):
            found.append(_picture(source, index, file, FLIP_PX, FLIP_QUALITY))
    return tuple(found)


def _picture(source: ImageSource, index: int, file: str, longest_px: int, quality: int) -> Picture:
    image = decode(io.BytesIO(source.content(index)), source.item_name(index), source.preprocessing.exif)
    width, height = image.size
    image.thumbnail((longest_px, longest_px))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Picture(index, file, width, height, base64.b64encode(stream.getvalue()).decode("ascii"))
