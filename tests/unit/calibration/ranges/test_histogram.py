"""Histograms of data in pieces equal numpy's on all the data at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emca_deploy.calibration.ranges.histogram import BINS, SMALLEST_EXPONENT, Histogram

values = hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-(2.0**100), 2.0**100, width=32))
scaled = st.builds(
    lambda seed, count, shift, scale: (np.random.default_rng(seed).standard_normal(count) * scale + shift).astype(np.float32),
    st.integers(0, 999), st.integers(1, 3000), st.floats(-3, 3), st.floats(1e-6, 1e6),
)  # fmt: skip


def slow_counts(data, exponent):
    """Count one value at a time, in exact arithmetic."""
    counts = np.zeros(2 * BINS - 1, np.int64)
    for value in data.ravel().tolist():
        counts[int(np.trunc(np.ldexp(value, -exponent))) + BINS - 1] += 1
    return counts


def same(a, b):
    return (a.exponent, a.minimum, a.maximum) == (b.exponent, b.minimum, b.maximum) and np.array_equal(a.counts, b.counts)


@given(st.one_of(values, scaled))
def test_counts_are_those_of_exact_arithmetic(data):
    histogram = Histogram.of(data)
    assert np.array_equal(histogram.counts, slow_counts(data, histogram.exponent))
    assert histogram.count == data.size
    assert (histogram.minimum, histogram.maximum) == (data.min(), data.max())


@given(scaled)
def test_the_width_is_the_smallest_that_holds_the_data(data):
    histogram = Histogram.of(data)
    largest = np.abs(data).max()
    assert largest < BINS * histogram.width
    assert largest == 0 or largest >= BINS / 2 * histogram.width


@given(st.one_of(values, scaled), st.lists(st.integers(0, 3000), max_size=6), st.randoms(use_true_random=False))
def test_any_cut_in_any_order_gives_the_same_histogram(data, cuts, random):
    pieces = [piece for piece in np.split(data, sorted(cut for cut in cuts if cut < data.size)) if piece.size]
    random.shuffle(pieces)
    merged = Histogram.of(pieces[0])
    for piece in pieces[1:]:
        merged = merged.merged(Histogram.of(piece))
    assert same(merged, Histogram.of(data))


def test_more_values_than_a_chunk_holds():
    data = np.random.default_rng(0).standard_normal((3, 50_000)).astype(np.float32)
    histogram = Histogram.of(data)
    assert np.array_equal(histogram.counts, slow_counts(data, histogram.exponent))


@given(st.one_of(values, scaled), st.floats(0.001, 1))
def test_quantiles_are_within_a_bin(data, share):
    histogram = Histogram.of(data)
    rank = min(max(int(np.ceil(share * data.size)), 1), data.size) - 1
    exact = float(np.sort(data)[rank])
    assert exact <= histogram.quantile(share) <= exact + (1 + 1e-9) * histogram.width * (2 if abs(exact) < histogram.width else 1)
    magnitude = float(np.sort(np.abs(data))[rank])
    assert magnitude <= histogram.magnitude_quantile(share) <= magnitude + (1 + 1e-9) * histogram.width


def test_tensors_of_zeros_and_of_the_smallest_numbers():
    dead = Histogram.of(np.zeros((2, 3), np.float32))
    assert (dead.exponent, dead.summary([])["near_zero"], dead.quantile(0.5)) == (SMALLEST_EXPONENT, 6, 0)
    tiny = Histogram.of(np.full(4, 1e-45, np.float32))
    assert tiny.count == 4
    lively = np.array([1, 2], np.float32)
    assert same(dead.merged(Histogram.of(lively)), Histogram.of(np.concatenate([np.zeros(6, np.float32), lively])))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        Histogram.of(np.array([1, bad], np.float32))
    with pytest.raises(ValueError, match="nothing"):
        Histogram.of(np.zeros(0, np.float32))


def test_the_largest_number_is_counted():
    largest = np.finfo(np.float32).max
    histogram = Histogram.of(np.array([-largest, largest], np.float32))
    assert histogram.counts[[0, -1]].tolist() == [1, 1]


@given(st.one_of(values, scaled))
def test_it_comes_back_from_json(data):
    histogram = Histogram.of(data)
    assert same(histogram, Histogram.unpacked(histogram.packed, histogram.minimum, histogram.maximum))


def test_damaged_content_is_refused():
    import base64
    import zlib

    good = Histogram.of(np.arange(100, dtype=np.float32)).packed
    bomb = base64.b64encode(zlib.compress(bytes(10_000_000))).decode()
    negative = base64.b64encode(zlib.compress(np.array([-1], "<i8").tobytes())).decode()
    for change in (
        {"first": -BINS}, {"first": BINS - 50}, {"exponent": 4000}, {"counts": "!"}, {"counts": good["counts"][:-8]},
        {"counts": bomb}, {"counts": negative}, {"counts": base64.b64encode(zlib.compress(b"")).decode()},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"."):
            Histogram.unpacked({**good, **change}, 0.0, 99.0)


def test_the_summary_describes_the_data():
    data = np.random.default_rng(1).normal(2, 3, 20_000).astype(np.float32)
    summary = Histogram.of(data).summary([0.5])
    assert summary["count"] == 20_000
    assert summary["mean"] == pytest.approx(data.mean(), abs=0.01)
    assert summary["std"] == pytest.approx(data.std(), rel=0.01)
    assert summary["quantiles"]["0.5"] == pytest.approx(np.median(data), abs=0.02)


@pytest.mark.parametrize("step", [3, 7])
def test_a_sample_keeps_the_extremes_and_nearly_the_quantiles(step):
    data = np.random.default_rng(0).standard_normal((4, 50_000)).astype(np.float32)
    data[1, 1] = 9  # not among the counted values
    sample, whole = Histogram.of(data, step), Histogram.of(data)
    assert sample.count == -(-data.size // step)
    assert (sample.exponent, sample.minimum, sample.maximum) == (whole.exponent, whole.minimum, 9)
    assert sample.quantile(1) == sample.magnitude_quantile(1) == 9
    assert sample.quantile(0.99) == pytest.approx(whole.quantile(0.99), rel=0.02)
