"""A few outliers do not change the typical image's ratio."""

import numpy as np
import pytest

from emca_deploy.tasks.logits import LARGEST_DB, LogitsNoise, signal_to_noise_db


def logits_and_noise(factor: float) -> tuple[np.ndarray, np.ndarray]:
    reference = np.random.default_rng(0).standard_normal((50, 10)).astype(np.float32)
    return reference, (reference * np.float32(1 + factor)).astype(np.float32)


def test_of_images_all_alike_it_is_the_ratio_of_all():
    reference, found = logits_and_noise(0.01)
    assert LogitsNoise.of(reference, found).typical_db == pytest.approx(40, abs=1e-3)
    assert signal_to_noise_db(reference, found) == pytest.approx(40, abs=1e-3)


def test_one_image_far_off_counts_as_one():
    reference, found = logits_and_noise(0.01)
    reference[7] *= 1000
    found[7] = 2 * reference[7]
    assert LogitsNoise.of(reference, found).typical_db == pytest.approx(40 * 49 / 50, abs=1e-3)
    assert signal_to_noise_db(reference, found) < 1


def test_identical_images_are_counted_at_the_limit_of_float32():
    reference, found = logits_and_noise(0.01)
    assert LogitsNoise.of(reference, reference).typical_db == LARGEST_DB
    found[:25] = reference[:25]
    assert LogitsNoise.of(reference, found).typical_db == pytest.approx((40 + LARGEST_DB) / 2, abs=1e-3)


def test_zeros_are_no_signal():
    assert LogitsNoise.of(np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)).typical_db == -LARGEST_DB
