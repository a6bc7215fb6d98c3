import io

import numpy as np
import pytest
from rich.console import Console

from emca_deploy.harness.accuracy.evaluate import compare
from emca_deploy.harness.accuracy.flips import ImageNames
from emca_deploy.reporting.accuracy import closed_gate, print_accuracy


def report_of(images=1000, lost=6, won=2, names=None):
    """The reference is right on all images but `won`, the candidate wrong on `lost` of those."""
    labels = np.arange(images) % 4
    reference, candidate = labels.copy(), labels.copy()
    candidate[:lost] = (labels[:lost] + 1) % 4
    reference[lost : lost + won] = (labels[lost : lost + won] + 1) % 4
    ours, theirs = (4 * np.eye(4, dtype=np.float32)[predicted] for predicted in (candidate, reference))
    return compare("int8.onnx", ours, labels, "fp32.onnx", theirs, names)


@pytest.mark.parametrize(
    ("lost", "max_drop", "reason", "remedy"),
    [
        (7, 0.3, "the drop itself is outside", "calibrate --max-drop"),
        (6, 0.9, "the drop itself is inside, but not its interval", "images to decide"),
    ],
)
def test_closed_gate_says_point_interval_and_what_would_decide(lost, max_drop, reason, remedy):
    report = report_of(lost=lost)
    problem, what_to_do = closed_gate(report, max_drop)
    low, high = report.reference.top1_drop_ci95
    assert problem.startswith(f"int8.onnx: top-1 drop {report.reference.top1_drop:.2f} points (95%: {low:.2f} to {high:.2f})")
    assert problem.endswith(reason)
    assert remedy in what_to_do


def test_too_few_images_are_told_from_too_large_a_drop():
    problem, remedy = closed_gate(report_of(images=100, lost=0, won=0), 1.0)
    assert "100 images are too few: the interval reaches 3.70 points even without any difference" in problem
    assert "give about 390 images" in remedy


def test_open_gate_says_nothing():
    report = report_of()
    assert closed_gate(report, report.reference.top1_drop_ci95[1]) is None


def test_classes_flips_and_confidence_are_printed_by_name_and_hostile_names_tamed():
    names = ImageNames(("ant", "b\x1b[2J", "cat", "dog"), None, tuple(f"{i}.png" for i in range(1000)))
    out = io.StringIO()
    print_accuracy(report_of(names=names), Console(file=out, width=120))
    text = out.getvalue()
    assert "mean confidence 94.79%, ECE" in text
    assert "flips 8: right to wrong 6, wrong to right 2, wrong to wrong 0" in text
    assert "McNemar p 0.289" in text
    assert "flip: 1.png (is b?[2J): b?[2J became cat" in text
    assert "most often confused: ant as b?[2J 2" in text
    assert "\x1b" not in text
