"""Pictures of the images in which the candidates of a deployment lose or gain most detections."""

import base64
import io
from collections.abc import Sequence

from emca_deploy.data.preprocess import decode
from emca_deploy.data.sources import ImageSource
from emca_deploy.harness.accuracy.evaluation import Report
from emca_deploy.results.deploy import Picture
from emca_deploy.results.detection import DetectionReport

__all__ = ["pictures_of"]

PICTURES = 4
"""Most pictures of one candidate."""

LONGEST_PX = 480
QUALITY = 90


def pictures_of(source: ImageSource, reports: Sequence[Report]) -> tuple[Picture, ...]:
    """Return the pictures for the reports of several candidates on the same images; none for classifiers.

    Raises:
        DataError: an image cannot be read.
    """
    compared = [report.reference for report in reports if isinstance(report, DetectionReport)]
    chosen: dict[int, str] = {}
    for reference in compared:
        if reference is not None:
            chosen |= {index: flips[0].file for index, flips in reference.flips.by_image(PICTURES).items()}
    return tuple(_picture(source, index, file) for index, file in sorted(chosen.items()))


def _picture(source: ImageSource, index: int, file: str) -> Picture:
    image = decode(io.BytesIO(source.content(index)), source.item_name(index), source.preprocessing.exif)
    width, height = image.size
    image.thumbnail((LONGEST_PX, LONGEST_PX))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return Picture(index, file, width, height, base64.b64encode(stream.getvalue()).decode("ascii"))
