from fractions import Fraction
from math import comb

import pytest

from emca_deploy.stats.paired import images_needed, mcnemar_p


def exact(b, c):
    total = b + c
    tail = sum(Fraction(comb(total, k), 2**total) for k in range(min(b, c) + 1))
    return float(min(Fraction(1), 2 * tail))


@pytest.mark.parametrize("b", [0, 1, 5, 20])
@pytest.mark.parametrize("c", [0, 1, 4, 20, 33])
def test_p_value_is_the_binomial_one(b, c):
    assert mcnemar_p(b, c) == pytest.approx(exact(b, c), rel=1e-12)
    assert mcnemar_p(b, c) == mcnemar_p(c, b)


def test_known_value():
    assert mcnemar_p(10, 2) == pytest.approx(0.03857421875)  # 2 * (1 + 12 + 66) / 4096


def test_p_value_of_counts_beyond_floating_point():
    assert 0 < mcnemar_p(3000, 2000) < 1e-40
    assert mcnemar_p(5000, 0) == 0.0  # 2 / 2**5000 is below the smallest float
    assert mcnemar_p(20000, 19900) == pytest.approx(0.616, abs=0.005)  # by the normal approximation with continuity: 0.6204


def test_images_needed_shrink_as_the_gate_opens():
    needed = [images_needed(10, 6, 2000, gate) for gate in (0.3, 0.5, 1.0)]
    assert needed == sorted(needed, reverse=True)
    assert all(count is not None for count in needed)
