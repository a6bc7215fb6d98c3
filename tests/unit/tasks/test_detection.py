import numpy as np
import pytest
from coco_scenes import CATEGORY_IDS, scene_detections, scene_document, write_document
from refusals import refusing

from emca_deploy.data.coco import read_coco
from emca_deploy.data.preprocess import Placement
from emca_deploy.data.rle import counts_of_crop, decompress
from emca_deploy.errors import DataError, ModelError
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.detection import DetectionReport
from emca_deploy.tasks.detection import Named, Truth, compare, judge
from emca_deploy.tasks.detection_flips import compare_detections
from emca_deploy.tasks.detections import Detections
from emca_deploy.tasks.detector_outputs import detections_of
from emca_deploy.tasks.mask_pasting import pasted_counts
from emca_deploy.tasks.registry import TASKS

masks = pytest.importorskip("pycocotools.mask")

LABELS = np.arange(len(CATEGORY_IDS))


def one_image(boxes, scores, labels=None):
    count = len(scores)
    kinds = np.zeros(count, np.int64) if labels is None else np.array(labels, np.int64)
    return Detections(np.array([count]), np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), kinds)


def shown(counts, size):
    """Return run lengths as an image, without the code under test."""
    flat = np.zeros(size[0] * size[1], np.uint8)
    ends = np.cumsum(counts)
    for start, end in zip(ends[::2], ends[1::2], strict=False):
        flat[start:end] = 1
    return flat.reshape(size, order="F")


@pytest.mark.parametrize("box", [(10.3, 5.7, 30.2, 29.9), (-8, -5, 20, 20), (30, 30, 60, 55), (12, 12, 13, 13), (5, 5, 5, 9)])
def test_a_mask_is_pasted_as_grid_sample_does(box):
    torch = pytest.importorskip("torch")
    size, grid = (40, 50), np.random.default_rng(1).random((28, 28)).astype(np.float32)
    x1, y1, x2, y2 = box
    if x2 > x1:  # Detectron2's `_do_paste_mask` on the whole image
        ys = (np.arange(size[0]) + 0.5 - y1) / (y2 - y1) * 2 - 1
        xs = (np.arange(size[1]) + 0.5 - x1) / (x2 - x1) * 2 - 1
        places = torch.tensor(np.stack(np.meshgrid(xs, ys), axis=-1)[None], dtype=torch.float32)
        whole = torch.nn.functional.grid_sample(torch.tensor(grid)[None, None], places, align_corners=False)[0, 0].numpy()
    else:
        whole = np.zeros(size)
    counts = pasted_counts(grid, np.array(box, np.float32), size)
    assert counts.sum() == size[0] * size[1]
    unsure = np.abs(whole - 0.5) < 1e-5
    assert np.array_equal(shown(counts, size)[~unsure], (whole >= 0.5)[~unsure])


def test_detections_of_a_batch():
    used = Preprocessing((64, 64), (64, 64), resize="letterbox", pad="end")
    placements = [Placement.of((128, 64), used), Placement.of((32, 64), used)]
    outputs = {
        "num_detections": np.array([3, 0, 9], np.int32),
        "boxes": np.zeros((3, 4, 4), np.float32),
        "scores": np.array([[0.9, 0.8, 0.7, 0.6]] * 3, np.float32),
        "labels": np.array([[1, 2, 3, 4]] * 3, np.int32),
        "masks": np.ones((3, 4, 28, 28), np.float32),
    }
    outputs["boxes"][0] = [[0, 0, 16, 32], [16, 0, 40, 64], [40, 0, 60, 64], [1, 1, 2, 2]]
    with pytest.raises(ModelError, match="num_detections"):
        detections_of("m.onnx", outputs, [*placements, placements[0]])
    found = detections_of("m.onnx", outputs, placements)  # the third row fills a fixed batch
    assert found.counts.tolist() == [2, 0]
    assert found.boxes.tolist() == [[0, 0, 32, 64], [32, 0, 64, 128]]
    assert found.labels.tolist() == [1, 2]
    first, second = (decompress(text) for text in found.mask_texts())
    assert first.tolist() == counts_of_crop(np.ones((64, 32), np.bool_), 0, 0, (128, 64)).tolist()
    assert shown(second, (128, 64))[:, 33:].all()


@pytest.mark.parametrize("name", ["boxes", "scores"])
def test_outputs_that_are_not_finite(name):
    outputs = {
        "num_detections": np.array([1]),
        "boxes": np.zeros((1, 1, 4), np.float32),
        "scores": np.zeros((1, 1), np.float32),
        "labels": np.zeros((1, 1), np.int32),
    }
    outputs[name][:] = np.nan
    with refusing(ModelError, "m.onnx"):
        detections_of("m.onnx", outputs, [Placement((1, 1), (0, 0), (5, 5))])


def test_detections_of_a_run_are_collected_and_kept():
    document = scene_document(9)
    whole = scene_detections(document)
    task = TASKS["detection"]
    rows = list(whole.rows())
    ends = np.cumsum(whole.mask_lengths)

    def part(first, last):
        inside = slice(rows[first].start, rows[last - 1].stop)
        text = slice(int(ends[inside.start] - whole.mask_lengths[inside.start]), int(ends[inside.stop - 1]))
        return Detections(
            whole.counts[first:last], whole.boxes[inside], whole.scores[inside], whole.labels[inside],
            whole.mask_text[text], whole.mask_lengths[inside],
        )  # fmt: skip

    first = task.collector(None)
    first.add(part(0, 4).arrays(), 9)
    again = task.collector(task.answers(task.arrays(first.finish())))
    assert again.done == 4
    again.add(part(4, 9).arrays(), 9)
    for name, value in again.finish().arrays().items():
        assert np.array_equal(value, whole.arrays()[name]), name


@pytest.mark.parametrize(
    "change", [{"scores": np.zeros(2)}, {"mask_lengths": np.zeros(3)}, {"counts": np.array([-1, 5])}, {"boxes": None}]
)
def test_damaged_records_are_refused(change):
    changed = {f"detections.{name}": value for name, value in change.items()}
    arrays = {**scene_detections(scene_document(5)).arrays(), **changed}
    arrays = {name: value for name, value in arrays.items() if value is not None}
    with pytest.raises((ValueError, KeyError)):
        TASKS["detection"].answers(arrays)


def test_lost_and_gained_detections():
    reference = one_image([[0, 0, 10, 10], [20, 20, 30, 30], [40, 0, 50, 10]], [0.9, 0.8, 0.2])
    candidate = one_image([[1, 0, 10, 10], [20, 20, 30, 24], [60, 60, 70, 70]], [0.1, 0.9, 0.5])
    found = compare_detections(candidate, reference, ("a.png",))
    assert found.compared == 2
    assert found.agreement == 50
    kinds = [(flip.kind, flip.box, flip.right) for flip in found.flips.detections]
    assert kinds == [("lost", (20, 20, 30, 30), None), ("gained", (20, 20, 30, 24), None), ("gained", (60, 60, 70, 70), None)]
    assert (found.flips.lost, found.flips.gained, found.flips.images) == (1, 2, 1)


def test_a_match_needs_the_same_class_and_is_used_once():
    reference = one_image([[0, 0, 10, 10], [0, 0, 10, 10]], [0.9, 0.8], [0, 0])
    assert compare_detections(one_image([[0, 0, 10, 10]], [0.9], [1]), reference, ("a",)).flips.lost == 2
    assert compare_detections(one_image([[0, 0, 10, 10]], [0.9], [0]), reference, ("a",)).flips.lost == 1
    assert compare_detections(one_image([], []), reference, ("a",)).agreement == 0
    assert compare_detections(reference, one_image([], []), ("a",)).agreement is None


def truth_of(tmp_path, document):
    return Truth(read_coco(write_document(tmp_path, document)), LABELS)


def test_the_report(tmp_path):
    document = scene_document(30)
    truth = truth_of(tmp_path, document)
    good, bad = (Named(name, scene_detections(document, 4, distort=value)) for name, value in (("good", 0.03), ("bad", 0.2)))
    report = compare(bad, truth.annotations.files, truth, good)
    against = report.reference
    assert (report.samples, report.objects) == (30, int((~truth.annotations.crowd).sum()))
    assert against.box_ap_drop == pytest.approx(against.box.ap - report.box.ap)
    assert against.box_ap_drop_ci95[0] < against.box_ap_drop < against.box_ap_drop_ci95[1]
    assert against.mask_ap_drop_ci95[0] < against.mask_ap_drop < against.mask_ap_drop_ci95[1]
    assert 0 < against.agreement < 100
    assert 0 < against.flips.lost_right <= against.flips.lost
    assert [entry.name for entry in report.per_class] == [f"kind {one}" for one in CATEGORY_IDS]
    assert sum(entry.objects for entry in report.per_class) == report.objects
    assert from_json(DetectionReport, to_json(report)) == report


def test_the_gate(tmp_path):
    document = scene_document(30)
    truth = truth_of(tmp_path, document)
    good, bad = (Named(name, scene_detections(document, 4, distort=value)) for name, value in (("good", 0.03), ("bad", 0.2)))
    report = compare(bad, truth.annotations.files, truth, good)
    drop, interval = report.reference.box_ap_drop, report.reference.box_ap_drop_ci95
    assert not judge(report, drop / 2).reached
    assert judge(report, drop / 2).images_needed is None
    between = judge(report, (drop + interval[1]) / 2)
    assert not between.reached
    assert between.images_needed == pytest.approx(4 * 30, abs=10)
    assert judge(report, max(interval[1], report.reference.mask_ap_drop_ci95[1])).reached
    same = compare(good, truth.annotations.files, truth, good)
    assert judge(same, 0).reached
    assert same.reference.agreement == 100


def test_without_annotations_only_the_agreement_is_measured():
    document = scene_document(10)
    good, bad = (Named("x", scene_detections(document, 4, distort=value)) for value in (0.03, 0.1))
    report = compare(bad, tuple("0123456789"), None, good)
    assert report.box is None
    assert report.reference.box_ap_drop is None
    assert report.reference.agreement is not None
    with refusing(DataError):
        compare(good, tuple("0123456789"), None)


def test_a_reference_without_masks(tmp_path):
    document = scene_document(5)
    whole = scene_detections(document)
    boxes = Detections(whole.counts, whole.boxes, whole.scores, whole.labels)
    truth = truth_of(tmp_path, document)
    with refusing(ModelError, "with", "without"):
        compare(Named("with", whole), truth.annotations.files, truth, Named("without", boxes))
    assert compare(Named("without", boxes), truth.annotations.files, truth).mask is None


def test_a_high_score_threshold_and_unknown_labels_are_warned_of(tmp_path):
    document = scene_document(20)
    whole = scene_detections(document)
    high = Detections(whole.counts, whole.boxes, whole.scores / 2 + 0.5, whole.labels + 2)
    truth = truth_of(tmp_path, document)
    first, second = compare(Named("model", high), truth.annotations.files, truth).warnings
    assert "0.05" in first
    assert "--class-map" in second
