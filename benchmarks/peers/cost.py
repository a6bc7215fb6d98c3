"""Measure the cost of a quantizer: images per second as a share of plain fp32 inference, and memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from peers.candidates import cost_candidates
from peers.job import Job, Outcome
from peers.process import quantize
from peers.settings import Run
from peers.store import Row
from peers.subjects import random_subject, test_images

__all__ = ["ARCHITECTURES", "PART", "run", "show"]

PART = "cost"
ARCHITECTURES = ("emca_eca_resnet18",)
INFERENCE_IMAGES = 100
"""Number of images that plain inference is timed with."""


def run(run: Run) -> None:
    """Measure what the results file lacks."""
    tests = test_images(run.data, run.folder).path  # there are more of them than calibration images; they serve for timing only
    for arch in run.archs or ARCHITECTURES:
        subject = random_subject(arch, run.folder)
        shared = {"images": list(run.cost_images), "repeats": run.repeats, **subject.identity()}
        shared["memory_mib"] = round(run.memory_mib)
        model: Path | None = None
        for candidate in run.chosen(cost_candidates(run.levels)):
            made_from = run.made_from(candidate, **shared)
            row = run.store.find(PART, arch, candidate.name, made_from)
            if row is None and candidate.missing():
                reason = f"{candidate.missing()} is not installed"
                row = Row(PART, arch, candidate.name, {}, {"status": "missing", "reason": reason})
            elif row is None:
                run.tell(f"{arch}: cost of {candidate.name}")
                model = model or subject.export(run.folder)
                output = candidate.output(run.folder)
                job = Job(
                    method=candidate.method,
                    arguments=candidate.arguments,
                    model=model,
                    output=output,
                    data=tests,
                    preprocessing=subject.preprocessing,
                    samples=run.cost_images[0],
                    threads=run.threads,
                    memory_mib=run.memory_mib,
                )
                row = run.store.add(Row(PART, arch, candidate.name, made_from, _figures(run, job)))
            run.rows.append(row)


def _figures(run: Run, job: Job) -> dict[str, Any]:
    """Time a quantizer between two plain inferences, several times; then once with many images."""
    few, ratios = [], []
    for _ in range(run.repeats):
        outcome, ratio = _between_inferences(job)
        if outcome.status != "done":
            return {"status": outcome.status, "reason": outcome.reason}
        few.append(outcome)
        ratios.append(ratio)
    figures: dict[str, Any] = {
        "status": "done",
        "few": few[0].samples,
        "ratios": ratios,
        "images_per_s": [outcome.samples / outcome.seconds for outcome in few],
        "start_rss_mib": median(outcome.start_rss_mib for outcome in few),
        "peak_rss_mib": median(outcome.peak_rss_mib for outcome in few),
    }
    large, ratio = _between_inferences(replace(job, samples=run.cost_images[1]))
    if large.status != "done":
        return {**figures, "many": None, "many_reason": large.reason}
    more = {"many": large.samples, "many_images_per_s": large.samples / large.seconds, "many_ratio": ratio}
    return {**figures, **more, "many_peak_rss_mib": large.peak_rss_mib}


def _between_inferences(job: Job) -> tuple[Outcome, float]:
    """Return a job's outcome, and its images per second as a share of fp32 inference just before and after."""
    before = _inference_rate(job)
    outcome = _fresh(job)
    if outcome.status != "done":
        return outcome, 0.0
    rate = (before + _inference_rate(job)) / 2
    return outcome, outcome.samples / outcome.seconds / rate


def _fresh(job: Job) -> Outcome:
    if job.method != "ours":
        return quantize(job)
    with TemporaryDirectory() as folder:  # an earlier run's range table is not used
        return quantize(replace(job, arguments={**job.arguments, "table": str(Path(folder) / "m.ranges.json")}))


def _inference_rate(job: Job) -> float:
    outcome = quantize(replace(job, method="inference", arguments={}, samples=min(job.samples, INFERENCE_IMAGES)))
    if outcome.status != "done":
        raise RuntimeError(f"fp32 inference of {job.model} failed: {outcome.reason}")
    return outcome.samples / outcome.seconds


def show(rows: Sequence[Row], console: Console) -> None:
    """Print a table per architecture; the ratio to inference comes first."""
    for subject in dict.fromkeys(row.subject for row in rows):
        table = Table(title=f"Cost of calibration, {subject}, 224x224", title_justify="left")
        table.add_column("quantizer", no_wrap=True)
        headings = ("images/s, of fp32 inference's", "images/s", "images", "peak MiB", "with more images: of fp32's", "images")
        for heading in (*headings, "peak MiB", "grew by MiB"):
            table.add_column(heading, justify="right")
        for row in rows:
            if row.subject == subject:
                table.add_row(row.candidate, *_cells(row.figures))
        console.print(table)


def _cells(figures: dict[str, Any]) -> list[str]:
    if figures["status"] != "done":
        return [str(figures["reason"])]
    ratios = figures["ratios"]
    cells = [
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{median(figures['images_per_s']):.1f}",
        str(figures["few"]),
        f"{figures['peak_rss_mib']:.0f}",
    ]
    if figures["many"] is None:
        return [*cells, str(figures["many_reason"])]
    peak = figures["many_peak_rss_mib"]
    growth = f"{peak - figures['peak_rss_mib']:+.0f}"
    return [*cells, f"{figures['many_ratio']:.2f}", str(figures["many"]), f"{peak:.0f}", growth]
