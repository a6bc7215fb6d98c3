import json
import math

import numpy as np
import pytest
from refusals import refusing

from emca_deploy.errors import DataError, ModelError
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.tasks.classification import compare
from emca_deploy.tasks.logits import LogitsNoise


def random_case(count=200, classes=10, noise=0.8, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    reference = rng.standard_normal((count, classes)).astype(np.float32)
    reference[np.arange(count), labels] += 2
    logits = reference + noise * rng.standard_normal((count, classes)).astype(np.float32)
    return logits.astype(np.float32), labels, reference


def test_report_agrees_with_brute_force():
    logits, labels, reference = random_case()
    report = compare("int8", logits, labels, "fp32", reference)
    ours = [int(np.argmax(row)) == label for row, label in zip(logits, labels, strict=True)]
    theirs = [int(np.argmax(row)) == label for row, label in zip(reference, labels, strict=True)]
    top5 = [label in sorted(range(10), key=lambda k: -row[k])[:5] for row, label in zip(logits, labels, strict=True)]
    same = [np.argmax(a) == np.argmax(b) for a, b in zip(logits, reference, strict=True)]
    assert report.top1 == pytest.approx(100 * sum(ours) / 200)
    assert report.top5 == pytest.approx(100 * sum(top5) / 200)
    assert report.samples == 200
    against = report.reference
    assert against.top1 == pytest.approx(100 * sum(theirs) / 200)
    assert against.top1_drop == pytest.approx(against.top1 - report.top1)
    assert against.top1_drop_ci95[0] < against.top1_drop < against.top1_drop_ci95[1]
    assert against.agreement == pytest.approx(100 * sum(same) / 200)
    noise = sum(float(r - x) ** 2 for r, x in zip(reference.ravel(), logits.ravel(), strict=True))
    signal = sum(float(r) ** 2 for r in reference.ravel())
    assert against.sqnr_db == pytest.approx(10 * math.log10(signal / noise), rel=1e-5)
    assert against.typical_sqnr_db == pytest.approx(LogitsNoise.of(reference, logits).typical_db)


def test_report_survives_json():
    logits, labels, reference = random_case()
    report = compare("int8", logits, labels, "fp32", reference)
    document = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert json.loads(json.dumps(to_json(from_json(AccuracyReport, document)))) == document


def test_identical_logits():
    logits, labels, _ = random_case()
    against = compare("a", logits, labels, "b", logits.copy()).reference
    assert (against.sqnr_db, against.agreement, against.top1_drop) == (None, 100.0, 0.0)
    assert against.typical_sqnr_db == 150
    assert against.top1_drop_ci95[0] < 0 < against.top1_drop_ci95[1]


def test_constant_logits_are_no_hits_for_every_class():
    labels = np.arange(10)
    report = compare("flat", np.zeros((10, 10), np.float32), labels)
    assert (report.top1, report.top5) == (10.0, 50.0)


def test_fewer_than_five_classes_are_all_within_the_top_five():
    report = compare("few", np.eye(3, dtype=np.float32), np.array([0, 1, 0]))
    assert report.top1 == pytest.approx(200 / 3)
    assert report.top5 == 100.0


def test_without_labels_there_is_agreement_only():
    logits, _, reference = random_case()
    report = compare("a", logits, None, "b", reference)
    assert (report.top1, report.top5, report.reference.top1_drop, report.reference.top1_drop_ci95) == (None,) * 4
    assert 0 < report.reference.agreement < 100


def test_neither_labels_nor_reference():
    with refusing(DataError):
        compare("a", np.eye(3, dtype=np.float32), None)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_that_is_no_class(label):
    with refusing(DataError, label):
        compare("a", np.eye(3, dtype=np.float32), np.array([0, 1, label]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_name_whose(value):
    bad = np.eye(3, dtype=np.float32)
    bad[1, 2] = value
    labels = np.array([0, 1, 2])
    with refusing(ModelError, "ours", 1, 3):
        compare("ours", bad, labels)
    with refusing(ModelError, "theirs"):
        compare("ours", np.eye(3, dtype=np.float32), labels, "theirs", bad)


def test_reference_of_other_classes():
    with refusing(ModelError, "a", (3, 3), "b", (3, 4)):
        compare("a", np.eye(3, dtype=np.float32), np.array([0, 1, 2]), "b", np.ones((3, 4), np.float32))
