import numpy as np
import pytest
from coco_scenes import CATEGORY_IDS, coco_stats, scene_detections, scene_document, write_document

from emca_deploy.data.coco import read_coco
from emca_deploy.tasks import average_precision
from emca_deploy.tasks.average_precision import bootstrap, drop_interval, mean_precision, resampled_precision
from emca_deploy.tasks.object_matches import match_objects

pytest.importorskip("pycocotools")

LABELS = np.arange(len(CATEGORY_IDS))


def matched(tmp_path, document, detections, kind):
    return match_objects(read_coco(write_document(tmp_path, document)), LABELS, detections, kind)


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_cocoeval(tmp_path, kind, seed):
    document = scene_document(30, seed)
    detections = scene_detections(document, seed + 10)
    figures, by_class = mean_precision(matched(tmp_path, document, detections, kind))
    stats, precision = coco_stats(document, detections, kind)
    own = (figures.ap, figures.ap50, figures.ap75, figures.ap_small, figures.ap_medium, figures.ap_large)
    assert 1 < figures.ap < 99
    assert own == pytest.approx([100 * value for value in stats[:6]], abs=1e-9)
    for index, value in enumerate(by_class):
        assert value == pytest.approx(100 * precision[:, :, index, 0, 2].mean(), abs=1e-9)


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(4))
def test_weights_equal_cocoeval_on_the_resampled_set(tmp_path, kind, seed):
    document = scene_document(20, seed)
    detections = scene_detections(document, seed + 20)
    weights = np.random.default_rng(seed).multinomial(20, np.full(20, 1 / 20), size=3)
    own = resampled_precision(matched(tmp_path, document, detections, kind), weights)
    theirs = [100 * coco_stats(document, detections, kind, copies)[0][0] for copies in weights]
    assert own == pytest.approx(theirs, abs=1e-9)


def test_a_class_that_a_resample_lacks_is_left_out_as_cocoeval_does(tmp_path):
    document = scene_document(12, 5, most=2)
    detections = scene_detections(document, 6)
    weights = np.zeros((1, 12), np.int64)
    weights[0, :2] = 3
    own = resampled_precision(matched(tmp_path, document, detections, "box"), weights)
    assert own[0] == pytest.approx(100 * coco_stats(document, detections, "box", weights[0])[0][0], abs=1e-9)


def test_pieces_of_resamples_give_the_same(tmp_path, monkeypatch):
    document = scene_document(20, 3)
    matches = matched(tmp_path, document, scene_detections(document, 4), "box")
    weights = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=50)
    whole = resampled_precision(matches, weights)
    monkeypatch.setattr(average_precision, "MOST_AT_ONCE", 200)
    assert np.array_equal(resampled_precision(matches, weights), whole)


def test_only_the_best_hundred_detections_of_an_image_count(tmp_path):
    document = scene_document(3, 1)
    detections = scene_detections(document, 2, most_false=400)
    figures, _ = mean_precision(matched(tmp_path, document, detections, "box"))
    keep = np.concatenate([np.arange(rows.stop - rows.start) < 100 for rows in detections.rows()])
    assert not keep.all()
    small = type(detections)(
        np.minimum(detections.counts, 100), detections.boxes[keep], detections.scores[keep], detections.labels[keep]
    )
    assert mean_precision(matched(tmp_path, document, small, "box"))[0] == figures


def test_identical_models_have_no_drop_and_a_worse_one_has(tmp_path):
    document = scene_document(60, 9)
    good = matched(tmp_path, document, scene_detections(document, 1, distort=0.02), "box")
    bad = matched(tmp_path, document, scene_detections(document, 1, distort=0.15), "box")
    resampled, other = bootstrap(good, 200), bootstrap(bad, 200)
    assert drop_interval(resampled, resampled) == (0.0, 0.0)
    low, high = drop_interval(resampled, other)
    drop = mean_precision(good)[0].ap - mean_precision(bad)[0].ap
    assert 0 < low < drop < high


def test_no_objects_at_all(tmp_path):
    document = scene_document(5, 1, most=0)
    figures, by_class = mean_precision(matched(tmp_path, document, scene_detections(document, 2), "box"))
    assert figures.ap is None
    assert set(by_class) == {None}
