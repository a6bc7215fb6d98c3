import json
import math

import numpy as np
import pytest

from emca_deploy.artifacts import Preprocessing
from emca_deploy.errors import DataError, InputError, ModelError
from emca_deploy.harness.accuracy.collection import collect_logits
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.tasks.classification import compare
from emca_deploy.tasks.logits import LogitsNoise

FOUR = Preprocessing(4, 4)


@pytest.fixture
def npz(tmp_path):
    def make(count=11, labels=True, size=4):
        rng = np.random.default_rng(0)
        arrays = {"images": rng.standard_normal((count, 3, size, size)).astype(np.float32)}
        if labels:
            arrays["labels"] = rng.integers(0, 4, count)
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return path, arrays

    return make


@pytest.mark.parametrize("batch", ["batch", 1, 4, 16])
def test_logits_are_the_models_in_order_whatever_its_batch(make_spec, npz, batch):
    path, arrays = npz()
    ticks = []
    found = collect_logits(make_spec(batch=batch), path, FOUR, batch_size=3, progress=lambda *tick: ticks.append(tick))
    np.testing.assert_allclose(found.logits, arrays["images"].sum(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.labels, arrays["labels"])
    assert ticks[-1] == (11, 11)
    assert found.images_per_s > 0
    assert found.preprocessing == FOUR


def test_limit_takes_logits_and_labels_of_the_same_images(make_spec, npz):
    path, arrays = npz(count=40)
    found = collect_logits(make_spec(), path, FOUR, limit=8)
    everything = arrays["images"].sum(axis=(1, 2))
    assert found.logits.shape == (8, 4)
    for logits, label in zip(found.logits, found.labels, strict=True):
        (index,) = np.flatnonzero(np.isclose(everything, logits, rtol=1e-4, atol=1e-5).all(axis=1))
        assert arrays["labels"][index] == label


def test_preprocessing_can_be_chosen_by_the_models_size(make_spec, npz):
    path, _ = npz(labels=False)
    found = collect_logits(make_spec(), path)
    assert found.preprocessing == Preprocessing.for_size(4)
    assert found.labels is None


def test_errors_of_the_data_set_come_back(make_spec, tmp_path, npz):
    with pytest.raises(DataError, match=r"nowhere\.zip"):
        collect_logits(make_spec(), tmp_path / "nowhere.zip", FOUR)
    path, _ = npz(size=8)
    with pytest.raises((DataError, InputError), match="8x8"):
        collect_logits(make_spec(), path, FOUR)


def test_relative_path_of_a_data_set(make_spec, npz, monkeypatch):
    path, _ = npz()
    monkeypatch.chdir(path.parent)
    assert len(collect_logits(make_spec(), type(path)("data.npz"), FOUR).logits) == 11


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
    with pytest.raises(DataError, match="no labels"):
        compare("a", np.eye(3, dtype=np.float32), None)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_that_is_no_class(label):
    with pytest.raises(DataError, match=f"label {label}"):
        compare("a", np.eye(3, dtype=np.float32), np.array([0, 1, label]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_name_whose(value):
    bad = np.eye(3, dtype=np.float32)
    bad[1, 2] = value
    labels = np.array([0, 1, 2])
    with pytest.raises(ModelError, match="ours: its logits are NaN or infinite for 1 of 3"):
        compare("ours", bad, labels)
    with pytest.raises(ModelError, match="theirs: its logits"):
        compare("ours", np.eye(3, dtype=np.float32), labels, "theirs", bad)


def test_reference_of_other_classes():
    with pytest.raises(ModelError, match=r"a: logits \(3, 3\), but b has \(3, 4\)"):
        compare("a", np.eye(3, dtype=np.float32), np.array([0, 1, 2]), "b", np.ones((3, 4), np.float32))
