import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy.tasks.classification import compare
from emca_deploy.tasks.confidence import confidence_of, expected_calibration_error
from emca_deploy.tasks.logits import ROWS_AT_ONCE, signal_to_noise_db


def softmax(row):
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def test_all_three_agree_with_their_definitions():
    rng = np.random.default_rng(1)
    logits = (3 * rng.standard_normal((300, 7))).astype(np.float32)
    labels = rng.integers(0, 7, 300)
    rows = [softmax([float(v) for v in row]) for row in logits]
    confidences = [max(row) for row in rows]
    hits = [row.index(max(row)) == label for row, label in zip(rows, labels, strict=True)]
    gaps = 0.0
    for number in range(15):
        inside = [i for i, c in enumerate(confidences) if number / 15 < c <= (number + 1) / 15]
        if inside:
            accuracy, mean = (sum(values[i] for i in inside) / len(inside) for values in (hits, confidences))
            gaps += len(inside) / 300 * abs(accuracy - mean)
    found = confidence_of(logits, labels)
    assert found.mean_confidence == pytest.approx(100 * sum(confidences) / 300, rel=1e-6)
    assert found.ece == pytest.approx(100 * gaps, rel=1e-6)
    assert found.nll == pytest.approx(-sum(math.log(row[k]) for row, k in zip(rows, labels, strict=True)) / 300, rel=1e-6)


def test_halved_logits_keep_the_accuracy_and_lose_the_confidence():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 10, 2000)
    logits = rng.standard_normal((2000, 10)).astype(np.float32)
    logits[np.arange(2000), labels] += 4
    report = compare("half", logits / 2, labels, "whole", logits)
    against = report.reference
    assert report.top1 == against.top1
    assert report.mean_confidence < against.mean_confidence - 20
    assert report.ece > against.ece + 10
    assert report.nll > against.nll
    assert against.mcnemar_p == 1.0


def test_sure_and_right_is_no_error_and_sure_and_wrong_is_all_of_it():
    sure = 50 * np.eye(4, dtype=np.float32)
    assert confidence_of(sure, np.arange(4)).ece == pytest.approx(0, abs=1e-6)
    assert confidence_of(sure, (np.arange(4) + 1) % 4).ece == pytest.approx(100)
    assert confidence_of(sure, (np.arange(4) + 1) % 4).nll == pytest.approx(50)


def test_a_model_that_ends_in_a_softmax_is_not_given_a_second_one():
    logits = np.random.default_rng(3).standard_normal((50, 5)).astype(np.float32) * 2
    labels = np.arange(50) % 5
    probabilities = np.array([softmax([float(v) for v in row]) for row in logits], np.float32)
    one, other = confidence_of(logits, labels), confidence_of(probabilities, labels)
    assert (one.mean_confidence, one.ece, one.nll) == pytest.approx((other.mean_confidence, other.ece, other.nll), rel=1e-5)


def test_a_probability_of_nothing_gives_a_finite_loss():
    probabilities = np.array([[1, 0], [1, 0]], np.float32)
    assert 80 < confidence_of(probabilities, np.array([1, 1])).nll < 100


def test_huge_logits_do_not_overflow():
    found = confidence_of(np.array([[3e38, -3e38]], np.float32), np.array([1]))
    assert found.mean_confidence == 100
    assert math.isfinite(found.nll)


def test_without_labels_only_the_confidence_is_known():
    found = confidence_of(2 * np.eye(3, dtype=np.float32), None)
    assert (found.ece, found.nll) == (None, None)
    assert found.mean_confidence == pytest.approx(100 * math.exp(2) / (math.exp(2) + 2))


def test_bins_are_closed_above():
    correct = np.array([True, False])
    confidence = np.array([1 / 3, 0.34])  # with 3 bins they fall into two, each with its own gap
    assert expected_calibration_error(confidence, correct, bins=3) == pytest.approx((2 / 3 + 0.34) / 2)
    assert expected_calibration_error(np.array([0.0, 1.0]), correct, bins=3) == 1.0


@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_error_is_a_share_and_at_least_the_gap_of_the_means(count, bins, seed):
    rng = np.random.default_rng(seed)
    confidence, correct = rng.random(count), rng.random(count) < 0.5
    error = expected_calibration_error(confidence, correct, bins)
    assert abs(confidence.mean() - correct.mean()) - 1e-9 <= error <= 1 + 1e-9


@pytest.mark.parametrize("count", [ROWS_AT_ONCE - 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 3])
def test_pieces_are_all_of_it(count):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((count, 3)).astype(np.float32)
    labels = rng.integers(0, 3, count)
    report = compare("a", logits, labels, "b", logits + np.float32(0.1))
    wide = logits.astype(np.float64)
    powers = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    assert report.mean_confidence == pytest.approx(100 * powers.max(axis=1).mean())
    assert report.nll == pytest.approx(-np.log(powers[np.arange(count), labels]).mean())
    noise = (((logits + np.float32(0.1)).astype(np.float64) - wide) ** 2).sum()
    signal = ((logits + np.float32(0.1)).astype(np.float64) ** 2).sum()
    assert signal_to_noise_db(logits + np.float32(0.1), logits) == pytest.approx(10 * math.log10(signal / noise), rel=1e-9)


def test_the_bins_add_up_to_the_calibration_error():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (500, 4)).astype(np.float32), rng.integers(0, 4, 500)
    found = confidence_of(logits, labels)
    assert sum(each.images for each in found.reliability) == 500
    gaps = sum(each.images * abs(each.confidence - each.accuracy) for each in found.reliability)
    assert gaps / 500 == pytest.approx(found.ece, abs=1e-3)
    assert [each.confidence for each in found.reliability] == sorted(each.confidence for each in found.reliability)
    assert confidence_of(logits, None).reliability == ()
