"""The report as one self-contained page: no script, no request, light and dark."""

from collections.abc import Mapping
from typing import Any

from emca_deploy.reporting.detection_page import flip_pictures, precision_columns
from emca_deploy.reporting.formats import NONE, facts, fixed, moment
from emca_deploy.reporting.output import render_page
from emca_deploy.reporting.plots import latency_plot, tradeoff_plot
from emca_deploy.reporting.recommendation import cautions_of, sentence_of, warnings_of
from emca_deploy.reporting.svg import COLOURS
from emca_deploy.reporting.table import deploy_columns
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.deploy import DeployReport
from emca_deploy.results.detection import DetectionComparison
from emca_deploy.results.recommendation import recommend

__all__ = ["render_html"]

_TERMS = {
    "data": "images from",
    "samples": "images",
    "seconds": "time, seconds",
    "max_abs": "largest difference of a logit",
    "max_rel": "relative to the largest logit",
    "cosine": "smallest cosine similarity",
}


def render_html(report: DeployReport) -> str:
    """Return the page of a deployment.

    Raises:
        MissingError: Jinja2 is not installed.
    """
    found = recommend(report)
    columns = [column for column in deploy_columns(report) if any(cell != NONE for cell in column.cells)]
    first = report.candidates[0]
    outputs = "logits" if isinstance(first.accuracy, AccuracyReport) else "outputs"
    return render_page(
        "report.html",
        report=report,
        verdict={"level": found.level, "sentence": sentence_of(report, found), "cautions": cautions_of(found)},
        columns=columns,
        legend=_legend(report),
        precision=precision_columns(report),
        flips=flip_pictures(report),
        least_score=_least_score(report),
        colours=COLOURS,
        stable=[candidate.latency.stable for candidate in report.candidates],
        chosen=[candidate.name == found.use for candidate in report.candidates],
        warnings=[*(("", warning) for warning in report.warnings), *warnings_of(report)],
        latency_plot=latency_plot(report),
        tradeoff_plot=tradeoff_plot(report),
        created=moment(report.created),
        protocol=_protocol(report),
        files=[(c.name, f"{c.latency.artifact} ({fixed(c.file_mib)} MiB)") for c in report.candidates],
        sections=[
            ("Calibration", "The images and the method that set the ranges of the INT8 models.", _facts(report.calibration)),
            ("Parity with PyTorch", f"How much the exported model's {outputs} differ from PyTorch's.", _facts(report.parity)),
            ("Machine and versions", "Where the latencies were measured.", _facts(report.environment)),
        ],
        images=first.accuracy.samples,
    )


def _least_score(report: DeployReport) -> str:
    """Return the lowest score of a detector's detections that are compared."""
    scores = [
        c.accuracy.reference.least_score for c in report.candidates if isinstance(c.accuracy.reference, DetectionComparison)
    ]
    return f"{scores[0]:g}" if scores else ""


def _legend(report: DeployReport) -> str:
    """Return the meaning of the columns about accuracy."""
    base = report.baseline
    if isinstance(report.candidates[0].accuracy, AccuracyReport):
        return (
            f"top-1: images with the right class. drop: top-1 of {base} minus that of the candidate; negative is better. "
            f"agree: images with the same class as {base}. SQNR: signal-to-noise ratio of all logits against {base}; typical: "
            "mean of the images' ratios."
        )
    return (
        f"AP: COCO's average precision, percent. drop: AP of {base} minus that of the candidate, points; negative is better. "
        f"agree: detections of {base} that the candidate finds too, with the same class and an IoU of at least 0.5."
    )


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return facts({_TERMS.get(key, key): value for key, value in values.items()})


def _protocol(report: DeployReport) -> str:
    first = report.candidates[0].latency
    calls = sum(candidate.latency.samples for candidate in report.candidates)
    cpu = report.environment.get("cpu")
    place = f" on {cpu['model']}" if isinstance(cpu, Mapping) and isinstance(cpu.get("model"), str) else ""
    return f"{calls:,} calls measured{place} ({first.target}, {first.scenario}, batch {first.batch})"
