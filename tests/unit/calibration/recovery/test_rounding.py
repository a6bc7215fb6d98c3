"""Rounding compared with brute force and with rounding to nearest."""

from itertools import product

import numpy as np
import pytest

from emca_deploy.calibration.placement.quantize import quantize_weight
from emca_deploy.calibration.recovery.weights import BLOCK, FACTOR_BLOCK, cholesky_in_place, round_weights


def output_error(weights, rounded, scales, gram):
    """Return the squared error of a layer's output, summed over its channels, in the Gram matrix's units."""
    errors = (weights - rounded * scales[:, None]).astype(np.float64)
    return float(np.einsum("oi,oi->", errors @ gram.astype(np.float64), errors))


def correlated(inputs, samples=500, seed=0):
    """Return correlated inputs, like neighbouring pixels."""
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((samples, 4)) @ rng.standard_normal((4, inputs)) + rng.standard_normal((samples, inputs)) / 5
    ).astype(np.float32)


@pytest.mark.parametrize("inputs", [6, BLOCK - 1, 2 * BLOCK + 5])
def test_output_error_is_far_below_that_of_the_nearest_integers(inputs):
    weights = np.random.default_rng(1).standard_normal((7, inputs)).astype(np.float32)
    x = correlated(inputs)
    gram = x.T @ x
    nearest, scales = quantize_weight(weights, 0)
    rounded = round_weights(weights, gram.copy(), scales)
    assert rounded.dtype == np.int8
    assert np.abs(rounded.astype(int)).max() <= 127
    assert output_error(weights, rounded, scales, gram) < output_error(weights, nearest, scales, gram) / 2


def test_error_is_the_one_of_the_layers_output():
    weights = np.random.default_rng(1).standard_normal((3, 20)).astype(np.float32)
    x = correlated(20)
    rounded, scales = quantize_weight(weights, 0)
    error = x @ (weights - rounded * scales[:, None]).T
    assert output_error(weights, rounded, scales, x.T @ x) == pytest.approx(
        float(np.sum(error.astype(np.float64) ** 2)), rel=1e-3
    )


def test_it_comes_close_to_the_best_of_all_roundings_of_a_small_layer():
    weights = (np.random.default_rng(2).standard_normal((1, 8)) * 3).astype(np.float32)
    x = correlated(8)
    gram, scales = x.T @ x, np.ones(1, np.float32)
    choices = product(*((np.floor(w), np.ceil(w)) for w in weights[0]))
    best = min(output_error(weights, np.array([choice], np.int8), scales, gram) for choice in choices)
    found = output_error(weights, round_weights(weights, gram.copy(), scales), scales, gram)
    nearest = output_error(weights, np.rint(weights).astype(np.int8), scales, gram)
    assert found <= max(2 * best, nearest / 4)


def test_uncorrelated_inputs_leave_the_nearest_integers():
    weights = np.random.default_rng(3).standard_normal((5, 40)).astype(np.float32)
    nearest, scales = quantize_weight(weights, 0)
    np.testing.assert_array_equal(round_weights(weights, np.eye(40, dtype=np.float32), scales), nearest)


def test_inputs_that_are_always_zero_leave_the_nearest_integers():
    weights = np.random.default_rng(3).standard_normal((5, 40)).astype(np.float32)
    nearest, scales = quantize_weight(weights, 0)
    np.testing.assert_array_equal(round_weights(weights, np.zeros((40, 40), np.float32), scales), nearest)


def test_dead_outputs_and_dead_inputs_stay_finite():
    weights = np.random.default_rng(4).standard_normal((4, 30)).astype(np.float32)
    weights[1] = 0
    x = correlated(30)
    x[:, ::3] = 0
    _, scales = quantize_weight(weights, 0)
    rounded = round_weights(weights, x.T @ x, scales)
    assert not rounded[1].any()


@pytest.mark.parametrize("size", [3, FACTOR_BLOCK, 2 * FACTOR_BLOCK + 5])
def test_the_factor_is_the_lower_triangle_whose_square_is_the_matrix(size):
    x = np.random.default_rng(0).standard_normal((size + 50, size)).astype(np.float32)
    matrix = x.T @ x
    worked_on = matrix.copy()
    factor = cholesky_in_place(worked_on)
    assert factor is worked_on
    assert not np.triu(factor, 1).any()
    np.testing.assert_allclose(factor @ factor.T, matrix, atol=1e-5 * np.abs(matrix).max())
    with pytest.raises(np.linalg.LinAlgError):
        cholesky_in_place(-matrix)
