"""The page and the table of sensitivity, from results alone."""

from dataclasses import replace
from io import StringIO
from xml.etree import ElementTree

import pytest
from rich.console import Console

from emca_deploy.reporting.sensitivity import bar_chart, print_sensitivity, render_sensitivity
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.sensitivity import Cost, SensitivityReport, UnitSensitivity

SVG = "{http://www.w3.org/2000/svg}"


def unit(name, kind="layer", removed=10.0, made=5.0):
    pattern = name + (".*" if kind == "block" else "")
    return UnitSensitivity(name, kind, pattern, 1, 12.5, Cost(45.0, 0.0), Cost(41.5, 1.5625), made, removed)


@pytest.fixture
def report():
    units = (unit("stem.conv", removed=43.9), unit("stage1.block0", "block"), unit("stage4.block0.shortcut.conv", removed=-3.0))
    return SensitivityReport("m.onnx", "openvino", "onnxruntime 1.22.0", "minmax", 300, 64, 0, Cost(41.0, 3.125), units)


def shown(report, width=80):
    console = Console(file=StringIO(), width=width, force_terminal=False)
    print_sensitivity(report, console)
    return console.file.getvalue()


def test_the_record_survives_json(report):
    assert from_json(SensitivityReport, to_json(report)) == report


def test_noise_is_the_inverse_of_decibels():
    assert Cost(20.0, 0.0).noise == pytest.approx(0.01)
    assert Cost(None, 0.0).noise == 0


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_and_leaves_out_the_gain_where_it_must(report, width):
    lines = shown(report, width).splitlines()
    assert max(map(len, lines)) <= width
    row = next(line for line in lines if line.startswith("stem.conv"))
    assert ("+0.50" in row) == (width == 200)
    assert "43.9" in row
    assert "1.56" in row
    assert any(line.startswith("stage1.block0.*") for line in lines)


def test_what_is_not_quantized_at_all_is_exact(report):
    exact = replace(report.units[0], alone=Cost(None, 0.0), kept_float=Cost(None, 0.0))
    assert "exact" in shown(replace(report, units=(exact,)))


def test_everything_foreign_is_text_to_the_page(report):
    evil = unit("<script>alert(1)</script>\x1b[2J&")
    page = render_sensitivity(replace(report, artifact="<b>x</b>", units=(evil, *report.units)))
    assert "<script" not in page
    assert "<b>x" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page


def test_a_model_without_blocks_has_one_chart(report):
    page = render_sensitivity(replace(report, units=(unit("a"),)))
    assert page.count("<svg") == 1


def test_bars_are_as_long_as_their_values_and_grow_from_zero_both_ways():
    chart = ElementTree.fromstring(bar_chart("x", "t", [("a", (10.0, 5.0)), ("b", (-5.0, 0.0))], ("s", "u"), "%"))
    paths = [element.get("d") for element in chart.iter(f"{SVG}path") if element.get("fill")][2:]  # the first are the legend's
    spans = []
    for path in paths:
        xs = [float(point.split()[0]) for point in path.removeprefix("M").removesuffix(" Z").split(" L")]
        spans.append((xs[0], xs[1]))
    zero = spans[0][0]
    assert {start for start, _ in spans} == {zero}
    lengths = [end - start for start, end in spans]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=0.2)
    assert lengths[2] == pytest.approx(-lengths[1], abs=0.2)
    assert lengths[3] == 0


def test_a_chart_of_zeros_and_of_long_names_can_be_drawn():
    chart = ElementTree.fromstring(bar_chart("x", "t", [("n" * 300, (0.0, 0.0))], ("s", "u"), "%"))
    assert all(len(text.text) <= 60 for text in chart.iter(f"{SVG}text"))
