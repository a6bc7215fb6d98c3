"""Compare latency at 224x224, batch 1: our INT8 model with the peers' and fp32 in the same runtime, interleaved and paired."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from emca_deploy.commands._progress_bars import progress
from emca_deploy.errors import WorkerError
from emca_deploy.harness.measure.latency import Protocol, measure
from emca_deploy.results.codec import to_json
from peers.candidates import Candidate, runtime_candidates
from peers.job import Job
from peers.process import quantize
from peers.settings import Run
from peers.store import Row
from peers.subjects import Subject, calibration_images, random_subject

__all__ = ["ARCHITECTURES", "PART", "run", "show"]

PART = "latency"
ARCHITECTURES = ("emca_eca_resnet50", "emca_eca_resnet18")
RUNTIMES = ("openvino", "onnxruntime")
CALIBRATION_IMAGES = 64
"""Number of calibration images, fewer than for accuracy: ranges do not change latency."""


def run(run: Run) -> None:
    """Measure what the results file lacks, one architecture and runtime after the other."""
    level = "none" if run.levels[0] else None  # recovery changes the weights' values, not the time they take
    for arch in run.archs or ARCHITECTURES:
        subject = random_subject(arch, run.folder)
        for backend in RUNTIMES:
            mine, *others = runtime_candidates(backend, level)
            candidates = [mine, *run.chosen(others)]
            made_from = {
                "candidates": [run.made_from(candidate) for candidate in candidates],
                "duration_s": run.duration_s,
                **subject.identity(),
            }
            row = run.store.find(PART, arch, backend, made_from)
            if row is None:
                run.tell(f"{arch}: latency in {backend}")
                row = run.store.add(Row(PART, arch, backend, made_from, _figures(run, subject, candidates)))
            run.rows.append(row)


def _figures(run: Run, subject: Subject, candidates: Sequence[Candidate]) -> dict[str, Any]:
    model = subject.export(run.folder)
    specs, absent = [], {}
    for candidate in candidates:
        artifact, reason = _artifact(run, subject, candidate, model)
        if reason:
            absent[candidate.name] = reason
            run.tell(f"  {candidate.name}: {reason}")
        else:
            precision = "fp32" if candidate.method == "inference" else "int8"
            specs.append(candidate.spec(artifact, run.threads, precision=precision))
    if candidates[0].name in absent:
        raise WorkerError(f"{candidates[0].name}: {absent[candidates[0].name]}", "there is no reference for the others")
    with progress(f"{subject.name} in {candidates[0].where}") as report:
        measured = measure(specs, Protocol(duration_s=run.duration_s, processes=4), report)
    return {"names": [spec.name for spec in specs], "absent": absent, "report": to_json(measured)}


def _artifact(run: Run, subject: Subject, candidate: Candidate, model: Path) -> tuple[Path, str]:
    """Return a candidate's model, or the reason why it has none."""
    if candidate.method == "inference":
        return model, ""
    if candidate.missing():
        return model, f"{candidate.missing()} is not installed"
    job = Job(
        method=candidate.method,
        arguments=candidate.arguments,
        model=model,
        output=candidate.output(run.folder),
        data=calibration_images(),
        preprocessing=subject.preprocessing,
        samples=min(CALIBRATION_IMAGES, run.images),
        threads=run.threads,
        memory_mib=run.memory_mib,
    )
    outcome = quantize(job)
    return job.output, outcome.reason


def show(rows: Sequence[Row], console: Console) -> None:
    """Print a table per architecture and runtime; its first figure is our time as a share of the other's."""
    for row in rows:
        table = Table(title=f"Latency, {row.subject} in {row.candidate}, 224x224, batch 1", title_justify="left")
        table.add_column("model", no_wrap=True)
        headings = ("our time over its time (95% CI)", "times faster", "p50 ms", "p90 ms", "p99 ms", "calls")
        for heading in headings:
            table.add_column(heading, justify="right")
        names, report = row.figures["names"], row.figures["report"]
        for index, name in enumerate(names):
            result = report["results"][index]
            ms = result["latency_ms"]
            absolute = (f"{ms['p50']:.2f}", f"{ms['p90']:.2f}", f"{ms['p99']:.2f}", str(result["samples"]))
            table.add_row(name, *_ratio(report["comparisons"], index), *absolute)
        for name, reason in row.figures["absent"].items():
            table.add_row(name, reason)
        console.print(table)
        for warning in sorted({w for result in report["results"] for w in result["warnings"]}):
            console.print(f"warning: {warning}", style="yellow")


def _ratio(comparisons: Sequence[dict[str, Any]], index: int) -> tuple[str, str]:
    if index == 0:
        return "1", "1"
    ratio, (low, high) = comparisons[index - 1]["ratio_p50"], comparisons[index - 1]["ratio_ci95"]
    return f"{ratio:.3f} ({low:.3f} to {high:.3f})", f"{1 / ratio:.2f}"
