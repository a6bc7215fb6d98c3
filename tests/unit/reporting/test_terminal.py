"""The terminal's tables at usual widths."""

import io

import pytest
from rich.console import Console

from emca_deploy.reporting.accuracy import print_accuracy
from emca_deploy.reporting.terminal import print_deploy, print_profile
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.latency import Comparison, ProfileReport


def printed(function, report, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    function(report, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_fits_the_width_with_a_line_a_candidate(typical, width):
    text = printed(print_deploy, typical, width)
    assert max(len(line) for line in text.splitlines()) <= width
    rows = [line for line in text.splitlines() if line.startswith(("onnxruntime ", "openvino ")) and ": " not in line]
    assert len(rows) == len(typical.candidates)


def test_shows_everything_at_120_columns(typical):
    text = printed(print_deploy, typical, 120)
    for heading in ("top-1 %", "drop, points", "agree %", "SQNR dB", "p50 ms", "p99 ms", "images/s", "MiB", "speed-up"):
        assert heading in text
    assert "0.05 (-0.15 to 0.30)" in text
    assert "3.61x (3.53 to 3.68)" in text
    assert text.partition("no room for: ")[2].splitlines()[0] == "p99 ms interval"
    assert "no room" not in printed(print_deploy, typical, 140)


def test_at_80_columns_the_decision_stays_and_the_rest_is_named(typical):
    text = printed(print_deploy, typical, 80)
    for kept in ("top-1 %", "0.05 (-0.15 to 0.30)", "p50 ms", "3.61x"):
        assert kept in text
    assert "images/s" in text.partition("no room for: ")[2]


def test_says_the_verdict_and_which_file(typical):
    text = printed(print_deploy, typical, 120)
    assert "recommended." in text
    assert "deploy this file: out/openvino-int8.engine\n" in text


def test_a_long_path_is_not_broken(report, candidate):
    artifact = "/".join(["a-long-folder-name"] * 12)
    assert f"deploy this file: {artifact}\n" in printed(print_deploy, report(candidate(artifact=artifact)), 80)


def test_unstable_candidates_are_marked_and_warnings_follow(report, candidate):
    text = printed(print_deploy, report(candidate(stable=False, warnings=["other processes used 23%"])), 120)
    assert "openvino int8*" in text
    assert "warning: openvino int8: other processes used 23%" in text


def test_without_labels_there_are_no_empty_columns(report, candidate):
    text = printed(print_deploy, report(candidate(labels=False), baseline_changes={"labels": False}), 120)
    assert "top-1 %" not in text
    assert "agree %" in text


def test_names_are_neither_markup_nor_terminal_commands(report, candidate):
    text = printed(print_deploy, report(candidate("[red]x[/red]\x1b[2J\nend int8")), 160)
    assert "[red]x[/red]?[2J end int8" in text
    assert "\x1b" not in text


def test_profile_names_speed_ups_against_the_first(candidate):
    results = (candidate("onnxruntime fp32", p50_ms=8.0).latency, candidate(p50_ms=2.0, stable=False, warnings=["hot"]).latency)
    comparison = Comparison(results[1].artifact, results[0].artifact, 4.0, (3.9, 4.1))
    report = ProfileReport(results, (comparison,), {})
    text = printed(print_profile, report, 160)
    assert "4.00x (3.90 to 4.10)" in text
    narrow = printed(print_profile, report, 80)
    assert "4.00x" in narrow
    assert max(len(line) for line in narrow.splitlines()) <= 80


def test_accuracy_says_the_drop_with_its_interval(candidate):
    text = printed(print_accuracy, candidate().accuracy, 80)
    assert "top-1 91.85%, top-5 99.80%" in text
    assert "drop 0.05 points (95%: -0.15 to 0.30)" in text
    assert "same class for 99.10%, SQNR of the logits 31.2 dB" in text


def test_accuracy_without_reference_stops_there():
    text = printed(print_accuracy, AccuracyReport("m.onnx", 10, 90.0, None, None), 80)
    assert text == "m.onnx: 10 images\n  top-1 90.00%\n"
