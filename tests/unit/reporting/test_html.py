"""The page is well-formed, self-contained, and inert for every result."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from emca_deploy.reporting.html import render_html

VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = '</title><script>alert(1)</script><img src=x onerror="alert(2)">{{ 7*7 }}\'"&\x00\ud800'


class Page(HTMLParser):
    """Parser of tags, attributes and text that fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words, self.scripts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open[-1:] == ["script"] else self.words).append(data)


def test_has_the_verdict_the_table_the_plots_and_the_facts(typical):
    html = render_html(typical)
    page = Page(html)
    words = " ".join(page.words)
    for expected in (
        "3.6x faster than",
        "0.05",
        "-0.15 to 0.30",
        "minmax",
        "Example CPU",
        "2,600 MHz",
        "emca-deploy demo -o out",
    ):
        assert expected in words
    rows = len(typical.candidates)
    assert page.tags.count("svg") == 2 + 2 * rows
    assert page.tags.count("tr") == 1 + rows + rows  # the table, and the reasons against all but one with their heading
    assert page.tags.count("details") == 1 + rows


def test_needs_nothing_from_outside(typical):
    html = render_html(typical)
    page = Page(html)
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    places = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset")]
    assert all(place.startswith(("#", "data:")) for place in places)
    assert not re.search(r"url\((?!data:)|@import|fetch\(|XMLHttpRequest|sendBeacon", html)
    assert set(re.findall(r"https?://[^\"' )]+", html)) <= {"http://www.w3.org/2000/svg", "https://github.com/leeoniya/uPlot"}
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy


def test_has_uplot_with_its_licence_only_where_a_plot_can_be_zoomed_into(typical, report, candidate):
    html = render_html(typical)
    assert "Copyright (c) 2022 Leon Sorokin" in html
    assert 'THE SOFTWARE IS PROVIDED "AS IS"' in html
    bare = render_html(report(candidate(samples=0), baseline_changes={"samples": 0}))
    assert "uPlot" not in bare


def test_follows_the_readers_colour_scheme(typical):
    assert "prefers-color-scheme: dark" in render_html(typical)


def test_whatever_a_result_contains_is_text(report, candidate):
    hostile = candidate(HOSTILE, artifact=HOSTILE, warnings=[HOSTILE], stable=False)
    facts = {HOSTILE: HOSTILE, "cpu": {"model": HOSTILE, HOSTILE: [HOSTILE, None]}}
    html = render_html(
        report(hostile, title=HOSTILE, command=HOSTILE, created=HOSTILE, calibration=facts, parity=facts, environment=facts)
    )
    page = Page(html)
    own = Page(render_html(report(candidate())))
    assert page.scripts == own.scripts
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "{{ 7*7 }}" in html
    assert "\x00" not in html
    html.encode("utf-8")


@pytest.mark.parametrize("candidates", [0, 1, 9])
def test_draws_any_number_of_candidates(report, candidate, candidates):
    html = render_html(report(*(candidate(f"backend{index} int8", p50_ms=2.0 + index) for index in range(candidates))))
    tags = Counter(Page(html).tags)
    assert tags["details"] == 1 + candidates + (candidates > 0)


def test_draws_what_has_no_labels_no_samples_and_no_facts(report, candidate):
    bare = candidate(labels=False, samples=0)
    html = render_html(report(bare, baseline_changes={"labels": False}, calibration={}, parity={}, environment={}))
    page = Page(html)
    assert "Agreement with the baseline, % against median latency" in page.words
    assert "Calibration" not in page.words


def test_what_may_be_wrong_with_images_and_labels_is_on_the_page(typical):
    warning = "the data set has 3 class folders <script>, but the network has 12 outputs"
    page = Page(render_html(replace(typical, warnings=(warning,))))
    assert warning in "".join(page.words)
    assert warning not in "".join(Page(render_html(typical)).words)


def test_a_detectors_page_has_its_average_precision_and_pictures(detector):
    page = Page(render_html(detector))
    words = " ".join(" ".join(page.words).split())
    assert "of box AP (95% interval -0.45 to -0.10)" in words
    for expected in ("Average precision", "openvino int8, mask", "AP75", "medium", "0.10 to 0.45", "scene3.png"):
        assert expected in words
    assert "large" not in page.words  # no object is large
    assert "SQNR" not in words
    assert "lost 1 (1 right), gained 1 (0 right), in 1 images" in words
    assert "lost coat 0.81, right" in words
    assert "gained bag 0.42, wrong" in words
    jpegs = [value for name, value in page.attributes if name == "href" and value.startswith("data:image")]
    assert jpegs == [f"data:image/jpeg;base64,{detector.pictures[0].jpeg}"]
    assert page.tags.count("svg") == 3 + 4
    dashes = [value for name, value in page.attributes if name == "stroke-dasharray"]
    assert dashes.count("7 4") == 1  # only the lost box is dashed
    without = Page(render_html(replace(detector, candidates=detector.candidates[:1])))
    assert "Lost and gained detections" in without.words
    assert "image" not in without.tags


def test_whatever_a_detection_contains_is_text(detector):
    best = detector.candidates[1]
    named = tuple(replace(entry, name=HOSTILE) for entry in best.accuracy.per_class)
    hostile = replace(best, name=HOSTILE, accuracy=replace(best.accuracy, per_class=named))
    picture = replace(detector.pictures[0], file=HOSTILE, width=0, height=1, jpeg=HOSTILE)
    html = render_html(replace(detector, candidates=(detector.candidates[0], hostile), pictures=(picture,)))
    page = Page(html)
    assert page.scripts == Page(render_html(detector)).scripts
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    html.encode("utf-8")
