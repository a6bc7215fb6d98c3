"""Scales and zero points against the definition of QuantizeLinear, for any range and any weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emca_deploy.calibration.placement.quantize import (
    LARGEST_BIAS,
    LARGEST_WEIGHT,
    activation_params,
    quantize_bias,
    quantize_weight,
    raise_scales_for_bias,
)
from emca_deploy.calibration.ranges.observers import MinMaxObserver, Observation, TensorRange

finite = st.floats(-1e6, 1e6, width=32)


@given(finite, finite, st.booleans())
def test_activation_params_cover_the_range(a, b, symmetric):
    low, high = min(a, b), max(a, b)
    params = activation_params(TensorRange(low, high), symmetric=symmetric)
    assert params.scale > 0
    assert np.isfinite(params.scale)
    smallest, largest = (-127, 127) if symmetric else (0, 255)
    assert smallest <= params.zero_point <= largest
    if params.scale == 1.0 and max(abs(low), abs(high)) < 1e-9:
        return
    # Every value of the range is represented to within half a step, plus the zero point's own rounding.
    assert (smallest - params.zero_point) * params.scale <= min(low, 0) + params.scale * 0.51
    assert (largest - params.zero_point) * params.scale >= max(high, 0) - params.scale * 0.51


def test_a_dead_tensor_has_a_usable_scale():
    assert activation_params(TensorRange(0.0, 0.0), symmetric=False).scale == 1.0
    assert activation_params(TensorRange(0.0, 0.0), symmetric=True).scale == 1.0


@given(hnp.arrays(np.float32, (5, 3, 2, 2), elements=st.floats(-100, 100, width=32)))
def test_weights_round_to_half_a_step(weight):
    integers, scales = quantize_weight(weight, 0)
    assert integers.dtype == np.int8
    assert (scales > 0).all()
    assert integers.min() >= -127  # -128 overflows when a kernel negates
    error = np.abs(integers * scales.reshape(-1, 1, 1, 1) - weight)
    assert (error <= scales.reshape(-1, 1, 1, 1) * 0.5001 + 1e-11).all()


def test_a_bias_never_overflows():
    weight_scales = np.array([1e-10, 0.01], np.float32)
    bias = np.array([3.0, 0.5], np.float32)
    raised = raise_scales_for_bias(weight_scales, bias, input_scale=0.001)
    integers, scales = quantize_bias(bias, raised, input_scale=0.001)
    assert np.abs(integers.astype(np.int64)).max() <= LARGEST_BIAS * 1.001  # single precision scales
    np.testing.assert_allclose(integers * scales.astype(np.float64), bias, rtol=1e-4)
    assert raised[1] == weight_scales[1]


@given(st.lists(hnp.arrays(np.float32, st.integers(1, 9), elements=finite), min_size=1, max_size=6))
def test_min_max_is_exact_whatever_the_batches(batches):
    observer = MinMaxObserver()
    for batch in batches:
        observer.observe(batch, batch)
    everything = np.concatenate(batches)
    assert observer.observation() == Observation(float(everything.min()), float(everything.max()))


def test_min_max_refuses_infinities_and_nothing():
    with pytest.raises(ValueError, match="not finite"):
        MinMaxObserver().observe(np.array([np.nan], np.float32), np.array([1.0], np.float32))
    with pytest.raises(ValueError, match="nothing"):
        MinMaxObserver().observation()


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-10, 10, width=32)), st.sampled_from([7, 8]))
def test_weights_of_seven_bits_leave_sixteen_bits_whole(weight, bits):
    integers, scales = quantize_weight(weight, 0, LARGEST_WEIGHT[bits])
    largest = int(np.abs(integers.astype(int)).max())
    assert largest <= LARGEST_WEIGHT[bits]
    assert np.abs(integers * scales[:, None] - weight).max() <= scales.max() * 0.5001
    if bits == 7:  # vpmaddubsw adds two products of uint8 and int8 in int16
        assert 2 * 255 * largest <= np.iinfo(np.int16).max
