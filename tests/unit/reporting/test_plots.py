"""The plots: axes with round ticks, labels that do not overlap, shapes inside the frame."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emca_deploy.reporting.axis import fit_axis
from emca_deploy.reporting.labels import Box, place_labels
from emca_deploy.reporting.plots import latency_plot, tradeoff_plot
from emca_deploy.reporting.svg import COLOURS

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("plot", [latency_plot, tradeoff_plot])
def test_is_well_formed_and_tells_what_it_shows(typical, plot):
    root = ET.fromstring(plot(typical))
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    for candidate in typical.candidates:
        assert candidate.name in description.text
    assert "2.35 ms" in description.text


@pytest.mark.parametrize("plot", [latency_plot, tradeoff_plot])
def test_everything_lies_inside_the_frame(typical, plot):
    root = ET.fromstring(plot(typical))
    _, _, width, height = (float(part) for part in root.get("viewBox").split())
    for node in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(node.get(name, 0)) <= width
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(node.get(name, 0)) <= height


def test_the_axis_is_logarithmic_only_where_latencies_are_far_apart(report, candidate):
    near = report(candidate(p50_ms=8.0))
    assert "log scale" not in tradeoff_plot(near)
    far = report(candidate(p50_ms=0.4))
    assert "log scale" in tradeoff_plot(far)
    assert "log scale" in latency_plot(far)


def test_the_page_stays_small_with_very_many_samples(report, candidate):
    assert len(latency_plot(report(candidate(samples=50_000)))) < 60_000


def test_the_histogram_is_highest_where_the_calls_are(report, candidate):
    svg = latency_plot(report(candidate(samples=4000)))
    outline = [pair.split() for pair in re.findall(r'<path d="M([\d. L]+) Z" fill="#E69F00" fill-opacity', svg)[0].split(" L")]
    peak_x = min(((float(y), float(x)) for x, y in outline))[1]
    lines = [float(x) for x in re.findall(r'<line x1="([\d.]+)" [^>]*stroke-width="2"', svg)]
    assert min(abs(peak_x - x) for x in lines) < 30  # the median's line


def test_colours_are_okabe_and_itos():
    assert set(COLOURS) <= {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
    assert len(set(COLOURS)) == len(COLOURS)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((0, 10), ["0", "2", "4", "6", "8", "10"]),
        ((0.21, 0.29), ["0.22", "0.24", "0.26", "0.28"]),
        ((1, 1000), ["1", "10", "100", "1,000"]),
        ((2, 11), ["2", "3", "4", "6", "8"]),
    ],
)
def test_ticks_are_round(values, labels):
    assert [label for _, label in fit_axis(values, 0, 400, margin=0.01).ticks()] == labels


@given(st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=6), st.floats(100, 1000))
def test_an_axis_holds_its_values_and_has_ticks_apart(values, length):
    axis = fit_axis(values, 0, length)
    assert all(0 < axis.px(value) < length for value in values)
    places = [axis.px(value) for value, _ in axis.ticks()]
    assert all(later - earlier >= 52 for earlier, later in pairwise(places))
    assert len({label for _, label in axis.ticks()}) == len(places)


def test_labels_of_marks_in_one_place_do_not_cover_each_other():
    centres = [(250.0, 150.0 + index) for index in range(6)]
    marks = [Box(x - 8, y - 8, x + 8, y + 8) for x, y in centres]
    bounds = Box(50, 10, 540, 320)
    labels = place_labels([f"candidate {index}" for index in range(6)], centres, marks, bounds)
    for index, label in enumerate(labels):
        assert label.box.outside(bounds) == 0
        assert not any(label.box.overlap(mark) for mark in marks)
        assert not any(label.box.overlap(other.box) for other in labels[index + 1 :])
