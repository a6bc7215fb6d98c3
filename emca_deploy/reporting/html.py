"""The report of a deployment as one self-contained page: no request, light and dark, readable without its script."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from emca_deploy.reporting.details.accuracy import flip_styles
from emca_deploy.reporting.details.cell import CellDetails, details_of, numbers_of_each, shared_facts
from emca_deploy.reporting.details.found import Found
from emca_deploy.reporting.details.further import further_tables
from emca_deploy.reporting.detection_page import flip_pictures, precision_columns
from emca_deploy.reporting.exchange import as_csv
from emca_deploy.reporting.formats import NONE, facts, fixed, moment, plain
from emca_deploy.reporting.output import render_page
from emca_deploy.reporting.plots import latency_plot, tradeoff_plot
from emca_deploy.reporting.recommendation import choices_of, warnings_of
from emca_deploy.reporting.scripts import scripts_of
from emca_deploy.reporting.svg import COLOURS
from emca_deploy.reporting.sweeps.words import change_of
from emca_deploy.reporting.table import deploy_columns, deploy_values, numbers_in
from emca_deploy.results.accuracy import AccuracyReport
from emca_deploy.results.deploy import DeployReport
from emca_deploy.results.deployment_cells import deployment_cells
from emca_deploy.results.detection import DetectionComparison
from emca_deploy.results.recommendation import chosen_names, recommend
from emca_deploy.results.requirements import CONFIDENCE

__all__ = ["render_html"]

_TERMS = {
    "data": "images from",
    "samples": "images",
    "seconds": "time, seconds",
    "max_abs": "largest difference of a logit",
    "max_rel": "relative to the largest logit",
    "cosine": "smallest cosine similarity",
}


def render_html(report: DeployReport, found: Found | None = None) -> str:
    """Return the page of a deployment; `found` is what else its folder has.

    Raises:
        MissingError: Jinja2 is not installed.
    """
    columns = [column for column in deploy_columns(report) if any(cell != NONE for cell in column.cells)]
    details, use = _details(report, found or Found()), chosen_names(report)
    return render_page(
        "report.html",
        report=report,
        columns=columns,
        sort=numbers_in(columns),
        csv=b64encode(as_csv(deploy_values(report)).encode()).decode(),
        legend=_legend(report),
        precision=precision_columns(report),
        flips=flip_pictures(report),
        least_score=_least_score(report),
        colours=COLOURS,
        stable=[candidate.latency.stable for candidate in report.candidates],
        chosen=[candidate.name in use for candidate in report.candidates],
        anchors=[each.anchor for each in details],
        warnings=[*(("", warning) for warning in report.warnings), *warnings_of(report)],
        latency_plot=latency_plot(report),
        tradeoff_plot=tradeoff_plot(report),
        created=moment(report.created),
        details=details,
        further=further_tables(found or Found()),
        script=scripts_of(details),
        pictures=flip_styles({each.index: each for each in report.pictures}, [card for each in details for card in each.cards]),
        images=report.candidates[0].accuracy.samples,
        **_choices(report),
        **_facts_of(report),
    )


def _choices(report: DeployReport) -> dict[str, Any]:
    """Return the choices, the label of a chosen candidate, and the changes from another deployment."""
    badges = {"recommended": "recommended", "keep": "keep"}
    return {
        "choices": choices_of(report),
        "badge": "recommended" if report.requirements else badges.get(recommend(report).level, "best"),
        "requirements": report.requirements,
        "confidence": f"{100 * CONFIDENCE:g}",
        "against": report.against,
        "changes": [(plain(each.key), *change_of(each)) for each in report.changes],
    }


def _details(report: DeployReport, found: Found) -> list[CellDetails]:
    verdicts = {each.key: each for group in report.groups for each in group.cells} if report.requirements else {}
    cells = deployment_cells(report)
    shared, numbers = shared_facts(list(cells.values())), numbers_of_each(len(cells))
    known = {picture.index: picture for picture in report.pictures}
    found = replace(found, pictures=known, classes=report.classes)
    return [
        details_of(f"candidate-{index}", plain(name), cell, verdicts.get(name), shared, found, numbers)
        for index, (name, cell) in enumerate(cells.items())
    ]


def _facts_of(report: DeployReport) -> dict[str, Any]:
    outputs = "logits" if isinstance(report.candidates[0].accuracy, AccuracyReport) else "outputs"
    return {
        "protocol": _protocol(report),
        "files": [(c.name, f"{c.latency.artifact} ({fixed(c.file_mib)} MiB)") for c in report.candidates],
        "sections": [
            ("Calibration", "The images and the method that set the ranges of the INT8 models.", _facts(report.calibration)),
            ("Parity with PyTorch", f"How much the exported model's {outputs} differ from PyTorch's.", _facts(report.parity)),
            ("Machine and versions", "Where the latencies were measured.", _facts(report.environment)),
        ],
    }


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
