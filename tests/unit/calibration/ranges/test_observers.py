"""Observers and calibration methods against slow, literal implementations."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusing

from emca_deploy.calibration.placement.quantize import activation_params
from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.entropy import LEVELS, Entropy, _divergences
from emca_deploy.calibration.ranges.methods.moving_average import MovingAverageObserver
from emca_deploy.calibration.ranges.methods.mse import LeastSquaredError, expected_error
from emca_deploy.calibration.ranges.methods.percentile import Percentile
from emca_deploy.calibration.ranges.methods.registry import METHODS, parse_method
from emca_deploy.calibration.ranges.observers import (
    KEPT_OUT_TURN,
    HistogramObserver,
    MinMaxObserver,
    Observation,
    TensorRange,
)
from emca_deploy.errors import InputError, UnknownNameError

KINDS = ["normal", "relu", "tail", "shifted", "negative"]


def draw(kind, seed, count=4000):
    generator = np.random.default_rng(seed)
    normal = generator.standard_normal(count)
    data = {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "tail": generator.standard_t(2, count),
        "shifted": normal + 7,
        "negative": -np.abs(normal) - 1,
    }[kind]
    return data.astype(np.float32)


data_sets = st.builds(draw, st.sampled_from(KINDS), st.integers(0, 999))


def quantization_error(data, values, *, symmetric):
    params = activation_params(values, symmetric=symmetric)
    low, high = (-127, 127) if symmetric else (0, 255)
    integers = np.clip(np.rint(data.astype(np.float64) / params.scale) + params.zero_point, low, high)
    return float((((integers - params.zero_point) * params.scale - data) ** 2).mean())


@pytest.mark.parametrize("batch", [1, 3, 7, 20])
def test_averages_go_over_images_not_batches(batch):
    images = np.random.default_rng(0).standard_normal((20, 50)).astype(np.float32)
    observer = MovingAverageObserver(0.9)
    for start in range(0, 20, batch):
        piece = images[start : start + batch]
        observer.observe(piece.min(axis=1), piece.max(axis=1))
    low, high = float(images[0].min()), float(images[0].max())
    for image in images:
        low, high = 0.9 * low + (1 - 0.9) * float(image.min()), 0.9 * high + (1 - 0.9) * float(image.max())
    seen = observer.observation()
    assert seen.own["average"] == (low, high)
    assert (seen.minimum, seen.maximum) == (images.min(), images.max())
    assert parse_method("moving-average:0.9").range_of(seen) == TensorRange(low, high)


@pytest.mark.parametrize("observer", [MinMaxObserver(), MovingAverageObserver(0.5), HistogramObserver()])
def test_an_observer_of_nothing_says_so(observer):
    with pytest.raises(ValueError, match="nothing was observed"):
        observer.observation()


@pytest.mark.parametrize("count", [1, KEPT_OUT_TURN - 1, KEPT_OUT_TURN, 2 * KEPT_OUT_TURN, 11])
def test_every_fourth_batch_is_kept_out_of_the_trial_observation(count):
    batches = [Histogram.of(draw("tail", seed, 50) * (seed + 1)) for seed in range(count)]
    observer = HistogramObserver()
    for batch in batches:
        observer.observe(batch)
    seen = observer.observation()
    assert_same(seen, batches)
    if count < KEPT_OUT_TURN:
        assert seen.trial is None
    else:
        assert_same(seen.trial, [batch for turn, batch in enumerate(batches, 1) if turn % KEPT_OUT_TURN])


def assert_same(seen, batches):
    merged = reduce(Histogram.merged, batches)
    assert (seen.minimum, seen.maximum) == (merged.minimum, merged.maximum)
    assert seen.histogram.exponent == merged.exponent
    assert np.array_equal(seen.histogram.counts, merged.counts)


@given(data_sets, st.floats(90, 100))
def test_percentiles_cut_no_more_than_they_say(data, percentile):
    values = Percentile(percentile).from_histogram(Histogram.of(data))
    allowed = (100 - percentile) / 100 * data.size + 1e-6
    assert (data > values.maximum).sum() <= allowed
    assert (data < values.minimum).sum() <= allowed
    assert (np.abs(data) > values.threshold).sum() <= allowed


@given(data_sets, st.floats(90, 100))
def test_percentiles_are_within_a_bin_of_the_exact_ones(data, percentile):
    histogram = Histogram.of(data)
    values = Percentile(percentile).from_histogram(histogram)
    rank = int(np.ceil(percentile / 100 * data.size)) - 1
    bin_width = 2 * histogram.width  # the bin at zero is two wide
    assert values.maximum == pytest.approx(np.sort(data)[rank], abs=bin_width)
    assert values.minimum == pytest.approx(np.sort(data)[::-1][rank], abs=bin_width)
    assert values.threshold == pytest.approx(np.sort(np.abs(data))[rank], abs=bin_width)


def test_the_hundredth_percentile_is_minmax():
    data = draw("normal", 5)
    assert Percentile(100).from_histogram(Histogram.of(data)) == TensorRange(data.min(), data.max(), np.abs(data).max())


def slow_divergences(counts):
    """The entropy calibration of NVIDIA's slides, implemented literally."""
    counts = np.array(counts, np.float64)
    counts[0] = counts[1]
    found = []
    for end in range(LEVELS, len(counts) + 1):
        p = counts[:end].copy()
        p[-1] += counts[end:].sum()
        q = np.zeros(end)
        for level in range(LEVELS):
            members = range(level * end // LEVELS, (level + 1) * end // LEVELS)
            filled = [i for i in members if counts[i] > 0]
            for i in filled:
                q[i] = sum(counts[j] for j in members) / len(filled)
        if q.sum() == 0 or ((q == 0) & (p > 0)).any():
            found.append(np.inf)
            continue
        p, q = p / p.sum(), q / q.sum()
        found.append(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))
    return np.array(found)


@given(st.integers(0, 999), st.integers(LEVELS + 1, 260), st.floats(0.1, 50))
@settings(max_examples=15)
def test_divergences_are_those_of_the_literal_algorithm(seed, bins, rate):
    generator = np.random.default_rng(seed)
    counts = generator.poisson(rate * np.exp(-np.arange(bins) / bins * 4)).astype(np.float64)
    counts[-1] += 1
    fast, slow = _divergences(counts), slow_divergences(counts)
    assert np.array_equal(np.isinf(fast), np.isinf(slow))
    finite = np.isfinite(slow)
    np.testing.assert_allclose(fast[finite], slow[finite], atol=1e-12)


def test_entropy_takes_the_clipping_point_of_least_divergence():
    data = draw("tail", 3, 200_000)
    histogram = Histogram.of(data)
    threshold = Entropy().from_histogram(histogram).threshold
    counts = histogram.magnitudes().reshape(-1, 2).sum(axis=1)
    bins = round(threshold / (2 * histogram.width))
    used = np.flatnonzero(counts)[-1] + 1
    assert LEVELS <= bins < used
    divergences = _divergences(counts[:used].astype(np.float64))
    assert divergences[bins - LEVELS] == divergences.min()
    assert threshold < np.abs(data).max()  # heavy tails are clipped


@given(st.sampled_from(KINDS), st.integers(0, 99))
def test_squared_error_is_never_above_minmax(kind, seed):
    data = draw(kind, seed)
    histogram = Histogram.of(data)
    chosen, whole = LeastSquaredError().from_histogram(histogram), TensorRange(float(data.min()), float(data.max()))
    shares = histogram.counts / histogram.count
    for symmetric in (True, False):
        ends = [(-chosen.threshold, chosen.threshold), (-whole.magnitude, whole.magnitude)]
        if not symmetric:
            ends = [(chosen.minimum, chosen.maximum), (min(whole.minimum, 0), max(whole.maximum, 0))]
        lows, highs = np.array(ends).T
        errors = expected_error(histogram.centres(), shares, lows, highs, symmetric=symmetric)
        assert errors[0] <= errors[1]
        # On the exact data it is not worse either, up to the resolution of the bins.
        exact = [quantization_error(data, values, symmetric=symmetric) for values in (chosen, whole)]
        assert exact[0] <= exact[1] * 1.02


@pytest.mark.parametrize("symmetric", [True, False])
def test_squared_error_clips_an_outlier(symmetric):
    data = np.concatenate([draw("normal", 0, 1_000_000), np.array([40], np.float32)])
    chosen, whole = LeastSquaredError().from_histogram(Histogram.of(data)), TensorRange(float(data.min()), 40.0)
    assert quantization_error(data, chosen, symmetric=symmetric) < 0.5 * quantization_error(data, whole, symmetric=symmetric)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_more_a_clipped_value_counts_the_less_is_clipped(symmetric):
    data = draw("tail", 2, 100_000)
    histogram = Histogram.of(data)
    found = [parse_method(text).from_histogram(histogram) for text in ("mse", "mse:1", "mse:10", "mse:100", "mse:1e6")]
    reached = [values.threshold if symmetric else values.maximum - values.minimum for values in found]
    assert found[0] == found[1]
    assert reached[1] < reached[2] < reached[3] <= reached[4]
    assert found[4].maximum == data.max()


@pytest.mark.parametrize("symmetric", [True, False])
def test_an_error_beyond_the_range_counts_as_often_as_it_is_told(symmetric):
    values, shares, ends = np.array([-3.0, 0.5, 5.0]), np.full(3, 1 / 3), (np.array([-1.0]), np.array([2.0]))
    once, often = (expected_error(values, shares, *ends, symmetric=symmetric, clip_weight=weight)[0] for weight in (1.0, 7.0))
    beyond = ((3 - 2) ** 2 + (5 - 2) ** 2) / 3 if symmetric else ((3 - 1) ** 2 + (5 - 2) ** 2) / 3
    assert often - once == pytest.approx(6 * beyond)


@given(st.floats(-100, 0, width=32), st.floats(0, 100, width=32), st.booleans())
def test_the_error_searched_is_that_of_the_quantizer(low, high, symmetric):
    data = draw("normal", 1, 200)
    values = TensorRange(low, high)
    ends = (-values.magnitude, values.magnitude) if symmetric else (low, high)
    found = expected_error(
        data.astype(np.float64), np.full(200, 1 / 200), np.array([ends[0]]), np.array([ends[1]]), symmetric=symmetric
    )
    if activation_params(values, symmetric=symmetric).scale != 1.0:
        assert found[0] == pytest.approx(quantization_error(data, values, symmetric=symmetric), rel=1e-9)


@pytest.mark.parametrize("constant", [0.0, 1e-45, 1e-30, 3.0, -3.0, 3e38])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in {"minmax", "moving-average"}])
def test_constant_tensors_get_a_scale(name, constant):
    data = np.full(1000, constant, np.float32)
    histogram = Histogram.of(data)
    seen = Observation(histogram.minimum, histogram.maximum, histogram)
    values = parse_method(name).range_of(seen)
    for symmetric in (True, False):
        scale = activation_params(values, symmetric=symmetric).scale
        assert scale > 0
        assert np.isfinite(np.float32(scale))
    if abs(constant) > 1 and name != "entropy":
        assert quantization_error(data, values, symmetric=False) <= (constant / 100) ** 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["percentile", "entropy", "mse"])
def test_ranges_stay_within_the_data(name, kind):
    data = draw(kind, 8)
    histogram = Histogram.of(data)
    values = parse_method(name).range_of(Observation(histogram.minimum, histogram.maximum, histogram))
    assert values.minimum <= values.maximum
    assert min(data.min(), 0) <= values.minimum
    assert values.maximum <= max(data.max(), 0)
    assert 0 < values.threshold <= np.abs(data).max()


def test_methods_read_and_write_themselves():
    for name in METHODS:
        method = parse_method(name)
        assert parse_method(str(method)) == method
    assert parse_method("percentile") == parse_method("percentile:99.99")
    assert str(parse_method("percentile:99.9")) == "percentile:99.9"
    with refusing(UnknownNameError, "percentil"):
        parse_method("percentil")
    for bad in (
        "minmax:3",
        "percentile:101",
        "percentile:x",
        "percentile:nan",
        "moving-average:1",
        "moving-average:-1",
        "mse:0.5",
    ):
        with refusing(InputError, bad):
            parse_method(bad)


def test_a_method_without_what_it_needs_is_refused():
    for name in ("moving-average", "percentile"):
        with pytest.raises(ValueError, match="was kept"):
            parse_method(name).range_of(Observation(0.0, 1.0))
