"""One gate decides for calibrate, validate and deploy."""

import numpy as np
import pytest

from emca_deploy.errors import GateError
from emca_deploy.reporting.gate import closed_gate, missed_gate
from emca_deploy.results.gate import Gate, GateReport, GateStep
from emca_deploy.tasks.classification import compare


def report_of(images=1000, lost=6, won=2):
    """The reference is wrong on the `won` images only, the candidate on `lost` of the others."""
    labels = np.arange(images) % 4
    reference, candidate = labels.copy(), labels.copy()
    candidate[:lost] = (labels[:lost] + 1) % 4
    reference[lost : lost + won] = (labels[lost : lost + won] + 1) % 4
    ours, theirs = (4 * np.eye(4, dtype=np.float32)[predicted] for predicted in (candidate, reference))
    return compare("int8.onnx", ours, labels, "fp32.onnx", theirs)


def gate_report(report, max_drop):
    """The report of a search that measured only this model."""
    reference = report.reference
    lost, won = reference.flips.lost, reference.flips.won
    step = GateStep((), 0.0, report.top1, reference.agreement, reference.top1_drop, reference.top1_drop_ci95, lost, won)
    verdict = Gate(max_drop).judge(step.top1_drop, step.top1_drop_ci95, report.samples, step.only_fp32, step.only_int8)
    return GateReport(
        max_drop, report.samples, reference.top1, "onnxruntime", False, (step,), 0,
        verdict.reached, verdict.reason, verdict.images_needed,
    )  # fmt: skip


@pytest.mark.parametrize(("images", "lost", "max_drop"), [(1000, 7, 0.3), (1000, 6, 0.9), (100, 0, 1.0), (100, 9, 1.0)])
def test_validate_and_calibrate_give_the_same_reason_for_the_same_model(images, lost, max_drop):
    """With 100 images and 9 lost, the two commands once gave different reasons: the drop, and too few images."""
    report = report_of(images, lost)
    verdict = Gate(max_drop).judge_report(report)
    validated = closed_gate(max_drop, verdict, report)
    calibrated = missed_gate(gate_report(report, max_drop), "int8.onnx")
    assert isinstance(validated, GateError)
    assert isinstance(calibrated, GateError)
    assert validated.problem.rpartition("is not within")[2] == calibrated.problem.rpartition("is not within")[2]
    assert str(verdict.images_needed) in validated.remedy.replace(",", "") or verdict.images_needed is None


@pytest.mark.parametrize(("lost", "max_drop", "needed"), [(7, 0.3, False), (6, 0.9, True)])
def test_more_images_help_only_where_the_drop_itself_is_inside(lost, max_drop, needed):
    verdict = Gate(max_drop).judge_report(report_of(lost=lost))
    assert not verdict.reached
    assert verdict.reason
    assert (verdict.images_needed is not None) == needed


def test_too_few_images_can_show_nothing():
    assert not Gate(1.0).decidable(100)
    assert Gate(1.0).decidable(1000)
    assert Gate(1.0).judge_report(report_of(images=100, lost=0, won=0)).images_needed == 390


def test_the_limit_itself_is_inside():
    report = report_of()
    verdict = Gate(report.reference.top1_drop_ci95[1]).judge_report(report)
    assert (verdict.reached, verdict.reason, verdict.images_needed) == (True, "", None)
