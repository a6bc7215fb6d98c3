import numpy as np
import pytest

from emca_deploy.errors import DataError
from emca_deploy.tasks.temperature import fit_temperature, judge_temperature


def answers(images=2000, classes=6, seed=0):
    """Return the logits of a model whose confidences are right, and labels drawn from them."""
    random = np.random.default_rng(seed)
    logits = (2 * random.standard_normal((images, classes))).astype(np.float32)
    labels = (logits + random.gumbel(size=logits.shape)).argmax(1)
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_scaled_logits_is_found(temperature):
    logits, _ = answers()
    assert fit_temperature(logits * np.float32(temperature), logits) == pytest.approx(temperature, rel=1e-4)


def test_probabilities_instead_of_logits_give_the_same_temperature():
    logits, _ = answers()
    powers = np.exp(2 * logits - (2 * logits).max(1, keepdims=True))
    assert fit_temperature(powers / powers.sum(1, keepdims=True), logits) == pytest.approx(2, rel=1e-3)


def test_too_sure_logits_get_the_calibration_of_the_reference():
    logits, labels = answers(6000)
    noise = 0.005 * np.random.default_rng(1).standard_normal(logits.shape)
    found = judge_temperature((1.6 * logits + noise).astype(np.float32), logits, labels)
    assert found.temperature == pytest.approx(1.6, rel=0.01)
    assert (found.fitted_images, found.judged_images) == (3000, 3000)
    assert found.ece_before > found.ece_reference + 4
    assert abs(found.ece_after - found.ece_reference) < 0.2
    low, high = found.ece_difference_ci95
    assert low < found.ece_after - found.ece_reference < high
    assert found.divergence_after < found.divergence_before / 100


def test_a_temperature_that_helps_only_the_images_it_was_fitted_on_is_not_taken():
    logits, labels = answers(200)
    candidate = logits.copy()
    candidate[::2] *= 1.5  # the images that it is fitted on
    found = judge_temperature(candidate, logits, labels)
    assert found.temperature == 1
    assert found.divergence_after == found.divergence_before


def test_a_network_that_has_lost_its_classes_gets_none():
    logits, labels = answers(400)
    assert judge_temperature(np.roll(logits, 1, axis=1), logits, labels).temperature == 1


def test_without_labels_the_divergence_remains():
    logits, _ = answers(200)
    found = judge_temperature(np.float32(1.5) * logits, logits, None)
    assert found.temperature == pytest.approx(1.5, rel=1e-3)
    assert (found.ece_before, found.ece_after, found.ece_reference, found.ece_difference_ci95) == (None,) * 4


def test_too_few_images_are_refused():
    logits, labels = answers(99)
    with pytest.raises(DataError):
        judge_temperature(logits, logits, labels)
