import csv
import json

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.errors import InputError, OutputError
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.tasks.classification import compare
from emca_deploy.tasks.flips import FlipsFile, ImageNames, find_flips, flip_rows
from emca_deploy.tasks.per_class import LARGEST_CONFUSION, confused_pairs, confusion_matrix, per_class

LABELS = np.array([0, 0, 0, 1, 1, 3])
OURS = np.array([0, 0, 1, 1, 0, 1])
THEIRS = np.array([0, 1, 1, 1, 1, 3])


def test_recall_and_precision_by_hand():
    found = per_class(OURS, LABELS, ("ant", "bee", "cat"), THEIRS)
    assert [(c.label, c.name, c.samples) for c in found] == [(0, "ant", 3), (1, "bee", 2), (3, "3", 1)]
    assert [c.recall for c in found] == pytest.approx([200 / 3, 50, 0])
    assert [c.precision for c in found[:2]] == pytest.approx([200 / 3, 100 / 3])
    assert found[2].precision is None
    assert [c.reference_recall for c in found] == pytest.approx([100 / 3, 100, 100])


def test_a_class_that_only_occurs_as_a_prediction_has_no_recall():
    (_, other) = per_class(np.array([0, 1]), np.array([0, 0]), ())
    assert (other.samples, other.recall, other.precision, other.reference_recall) == (0, None, 0.0, None)


def test_confusion_has_the_labels_in_rows():
    matrix = confusion_matrix(OURS, LABELS, 4)
    assert matrix == ((2, 1, 0, 0), (1, 1, 0, 0), (0, 0, 0, 0), (0, 1, 0, 0))
    assert confusion_matrix(OURS, LABELS, LARGEST_CONFUSION) is not None
    assert confusion_matrix(OURS, LABELS, LARGEST_CONFUSION + 1) is None


def test_pairs_most_often_confused_come_first():
    found = confused_pairs(np.array([1, 1, 2, 0, 0]), np.array([0, 0, 0, 2, 0]))
    assert [(c.label, c.predicted, c.samples) for c in found] == [(0, 1, 2), (0, 2, 1), (2, 0, 1)]
    assert len(confused_pairs(np.array([1, 2]), np.array([0, 0]), most=1)) == 1
    assert confused_pairs(LABELS, LABELS) == ()


def test_flips_are_the_images_that_changed_class_and_are_counted_by_who_is_right():
    names = ImageNames(indices=(5, 6, 7, 8, 9, 10), files=tuple("abcdef"))
    flips = find_flips(OURS, THEIRS, LABELS, names)
    assert (flips.total, flips.lost, flips.won) == (3, 2, 1)
    shown = [(f.index, f.file, f.label, f.reference, f.candidate) for f in flips.images]
    assert shown == [(6, "b", 0, 1, 0), (9, "e", 1, 1, 0), (10, "f", 3, 3, 1)]
    assert find_flips(OURS, THEIRS, None, None).images == ()
    assert find_flips(OURS, THEIRS, None, None).lost is None
    assert len(find_flips(OURS, THEIRS, LABELS, ImageNames(), most=2).images) == 2
    assert find_flips(OURS, THEIRS, LABELS, ImageNames(), most=2).total == 3


def one_hot(classes):
    return np.eye(4, dtype=np.float32)[classes] * 5


def test_report_with_everything_survives_json():
    report = compare("a", one_hot(OURS), LABELS, "b", one_hot(THEIRS), ImageNames(("ant", "bee", "cat", "dog")))
    document = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert from_json(AccuracyReport, document) == report
    assert report.per_class[2].name == "dog"
    assert report.confusion[3] == (0, 1, 0, 0)


def test_older_documents_are_still_read():
    old = {"artifact": "a", "samples": 10, "top1": 90.0, "top5": 100.0, "schema_version": 1}
    reference = {"artifact": "b", "top1": 90.0, "top5": 100.0, "agreement": 100.0, "sqnr_db": None, "top1_drop": 0.0}
    report = from_json(AccuracyReport, {**old, "reference": {**reference, "top1_drop_ci95": [-1.0, 1.0]}})
    assert (report.ece, report.per_class, report.reference.flips, report.reference.mcnemar_p) == (None,) * 4
    assert from_json(AccuracyReport, {**old, "reference": None}).reference is None


def test_without_names_the_report_stays_small():
    report = compare("a", one_hot(OURS), LABELS, "b", one_hot(THEIRS))
    assert (report.per_class, report.confusion, report.confused) == (None, None, None)
    assert (report.reference.flips.total, report.reference.flips.images) == (3, ())


@pytest.mark.parametrize(("classes", "extra"), [((), []), (("0", "1"), []), (("ant", "bee"), ["ant", "bee", "ant"])])
def test_file_of_flips(tmp_path, classes, extra):
    hostile = 'a, "b"\udcff.png'
    flips = find_flips(OURS, THEIRS, LABELS, ImageNames(files=("x", hostile, *"yzuv")))
    FlipsFile(tmp_path / "f.CSV").write(*flip_rows(flips, classes))
    with (tmp_path / "f.CSV").open(newline="", encoding="utf-8") as stream:
        head, first, *rest = list(csv.reader(stream))
    assert head[:5] == ["index", "file", "label", "reference", "candidate"]
    assert first[:5] == ["1", 'a, "b"\ufffd.png', "0", "1", "0"]
    assert first[5:] == [extra[0], extra[1], extra[2]] if extra else first[5:] == []
    assert len(rest) == 2
    FlipsFile(tmp_path / "f.json").write(*flip_rows(flips, classes))
    assert [row["index"] for row in json.loads((tmp_path / "f.json").read_text())] == [1, 4, 5]


def test_file_of_flips_is_refused_before_any_work(tmp_path):
    with refusing(InputError, "flips"):
        FlipsFile(tmp_path / "flips")
    with refusing(OutputError, tmp_path / "no"):
        FlipsFile(tmp_path / "no" / "flips.csv")
