"""The evaluation of detectors: candidates of a deployment against the first, and pictures of what they lose."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refusing

from emca_deploy._progress import silent
from emca_deploy.data.coco import read_coco
from emca_deploy.errors import DataError
from emca_deploy.harness.accuracy import annotated
from emca_deploy.harness.accuracy.annotated import AnnotatedImages
from emca_deploy.harness.accuracy.classified import ClassifiedImages
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.harness.accuracy.evaluation import Measured, Wishes
from emca_deploy.harness.accuracy.pictures import PICTURES, pictures_of
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.tasks.detections import Detections
from emca_deploy.tasks.flips import FlipsFile, ImageNames

DATA = Path(__file__).parents[3] / "examples/data"
USED = Preprocessing(96, 96, (0.0,) * 3, (1.0,) * 3)
MEASURED = (5, 6, 7, 8, 9, 10, 11)


@pytest.fixture(scope="module")
def images():
    pytest.importorskip("pycocotools")
    found = AnnotatedImages(Wishes("", DATA / "test_scenes.zip", annotations=DATA / "test_scenes.json", needs_truth=True))
    found.open(USED, None)
    return found


def perfect(without=()):
    """Return all annotated objects of the measured images as detections; images in `without` have none."""
    annotations = read_coco(DATA / "test_scenes.json").of_images(list(MEASURED))
    kept = [row for row, image in enumerate(annotations.image) if MEASURED[image] not in without]
    kept.sort(key=lambda row: annotations.image[row])
    boxes = annotations.boxes[kept].astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    counts = np.bincount(annotations.image[kept], minlength=len(MEASURED)).astype(np.int64)
    detections = Detections(
        counts, boxes, np.full(len(kept), 0.9, np.float32), annotations.category[kept].astype(np.int64), None, None
    )  # fmt: skip
    files = tuple(f"scene{index + 1:05d}.png" for index in MEASURED)
    return LogitsResult(detections, None, None, USED, ImageNames((), MEASURED, files))


def test_candidates_are_compared_with_the_first_on_the_measured_images(images):
    lossy = set(MEASURED[1:])
    first, second = images.compare_all({"fp32": perfect(), "int8": perfect(lossy)}, silent)
    assert (first.artifact, first.box.ap, first.reference.box_ap_drop) == ("fp32", pytest.approx(100), 0)
    assert second.reference.artifact == "fp32"
    assert second.reference.box_ap_drop > 50
    flips = second.reference.flips
    assert {flip.index for flip in flips.detections} == lossy  # positions in the data set, not among the measured images
    assert flips.lost == flips.lost_right == len(flips.detections)
    pictures = pictures_of(images.source, [first, second])
    assert len(pictures) == PICTURES
    assert {picture.index for picture in pictures} <= lossy
    for picture in pictures:
        assert picture.file == f"scene{picture.index + 1:05d}.png"
        assert Image.open(io.BytesIO(base64.b64decode(picture.jpeg))).size == (picture.width, picture.height) == (96, 96)


def test_the_report_shows_the_first_flips_and_the_file_has_all(tmp_path, monkeypatch):
    monkeypatch.setattr(annotated, "MOST_SHOWN", 2)
    images = AnnotatedImages(Wishes("int8", DATA / "test_scenes.zip", "fp32", annotations=DATA / "test_scenes.json"))
    images.open(USED, None)
    measured = Measured(perfect(MEASURED), perfect())
    flips = images.report(measured, silent).reference.flips
    assert len(flips.detections) == 2
    images.write_flips(measured, FlipsFile(tmp_path / "flips.csv"))
    rows = (tmp_path / "flips.csv").read_text().splitlines()
    assert len(rows) - 1 == flips.lost > 2


def test_a_deployment_needs_labels(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with refusing(DataError, tmp_path):
        ClassifiedImages(Wishes("", tmp_path, reference="fp32", needs_truth=True)).open(USED, None)
