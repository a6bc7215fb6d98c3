"""Pictures of a classifier's images whose class differs."""

import base64
import io
from dataclasses import replace

import numpy as np
from PIL import Image

from emca_deploy._progress import silent
from emca_deploy.data.sources import open_source
from emca_deploy.harness.accuracy.classified import ClassifiedImages
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.harness.accuracy.evaluation import Wishes
from emca_deploy.harness.accuracy.pictures import FLIP_PX, FLIPS, pictures_of
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.tasks.flips import ImageNames

USED = Preprocessing(32, 32, (0.0,) * 3, (1.0,) * 3)


def test_a_deployments_classifiers_have_the_images_whose_class_differs_the_lost_ones_first(tmp_path):
    names = []
    for label in ("coat", "bag"):
        (tmp_path / label).mkdir()
        for index in range(10):
            Image.new("RGB", (200, 100), (index, 90, 60)).save(tmp_path / label / f"{index}.png")
    images = ClassifiedImages(Wishes("", tmp_path, needs_truth=True))
    images.open(USED, 2)
    names = tuple(images.source.item_name(index) for index in range(20))
    labels = images.source.labels
    fp32 = np.eye(2, dtype=np.float32)[labels]
    fp32[:4] = fp32[:4, ::-1]  # wrong for the first four
    int8 = fp32[:, ::-1].copy()

    def result(logits):
        return LogitsResult(logits, labels, None, USED, ImageNames(images.source.classes, None, names))

    first, second = images.compare_all({"fp32": result(fp32), "int8": result(int8)}, silent)
    assert (first.reference.flips.total, second.reference.flips.lost, second.reference.flips.won) == (0, 16, 4)
    assert images.classes == ("bag", "coat")
    pictures = pictures_of(images.source, [first, second])
    assert [picture.index for picture in pictures] == list(range(4, 4 + FLIPS))
    picture = pictures[0]
    assert (picture.file, picture.width, picture.height) == (names[4], 200, 100)
    assert max(Image.open(io.BytesIO(base64.b64decode(picture.jpeg))).size) == FLIP_PX
    assert len(pictures_of(images.source, [second], most=3)) == 3
    (tmp_path / "bag" / "5.png").write_bytes(b"damaged")
    renamed = replace(second.reference.flips.images[4], file="other.png")
    flips = replace(second.reference.flips, images=(renamed, *second.reference.flips.images[5:8]))
    changed = replace(second, reference=replace(second.reference, flips=flips))
    assert [picture.index for picture in pictures_of(open_source(tmp_path, USED), [changed])] == [6, 7]
