"""Measure the accuracy of each quantizer's model on unseen test images, against the same fp32 logits."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from emca_deploy.errors import EmcaError
from emca_deploy.harness.accuracy.collection import LogitsResult, LogitsRun
from emca_deploy.tasks.classification import compare
from peers.candidates import Candidate, accuracy_candidates, fp32
from peers.job import Job
from peers.process import quantize
from peers.settings import Run
from peers.store import Row
from peers.subjects import Subject, TestImages, calibration_images, test_images, trained_subjects

__all__ = ["PART", "run", "show"]

PART = "accuracy"
BATCH = 16
REFERENCE = "fp32"
SIMULATION = "simulated: TensorRT's arithmetic, run in ONNX Runtime; not its kernels"


def run(run: Run) -> None:
    """Measure what the results file lacks, one network after the other."""
    tests = test_images(run.data, run.folder)
    candidates = [fp32(), *run.chosen(accuracy_candidates(run.levels))]
    for subject in trained_subjects(run.checkpoints, run.image_size, run.archs):
        shared = {
            **subject.identity(),
            "preprocessing": asdict(subject.preprocessing),
            "calibration_images": run.images,
            "test_images": tests.what,
            "limit": run.limit,
        }
        comparison = None
        for candidate in candidates:
            made_from = run.made_from(candidate, **shared)
            row = run.store.find(PART, subject.name, candidate.name, made_from)
            if row is None and candidate.missing():
                row = _missing(subject, candidate)
            elif row is None:
                comparison = comparison or _Comparison(run, subject, tests)
                row = comparison.measure(candidate, made_from)
            run.rows.append(row)


def _missing(subject: Subject, candidate: Candidate) -> Row:
    reason = f"{candidate.missing()} is not installed"
    return Row(PART, subject.name, candidate.name, {}, {"where": candidate.where, "status": "missing", "reason": reason})


class _Comparison:
    """One network with its export, its fp32 logits and the candidates compared with them."""

    def __init__(self, run: Run, subject: Subject, tests: TestImages) -> None:
        self._run, self._subject, self._tests = run, subject, tests
        run.tell(f"{subject.name}: export and fp32 logits of {tests.what}")
        self._model = subject.export(run.folder)
        self._reference = self._logits(fp32(), self._model, precision="fp32")

    def measure(self, candidate: Candidate, made_from: dict[str, Any]) -> Row:
        """Quantize with a candidate, run its model, and keep the figures."""
        figures = {"where": candidate.where, **self._figures(candidate)}
        row = self._run.store.add(Row(PART, self._subject.name, candidate.name, made_from, figures))
        self._run.tell(f"  {candidate.name}: {_in_words(figures)}")
        return row

    def _figures(self, candidate: Candidate) -> dict[str, Any]:
        run, output = self._run, candidate.output(self._run.folder)
        if candidate.name == REFERENCE:
            report = compare(REFERENCE, self._reference.logits, self._reference.labels)
            return {"status": "done", "top1": report.top1, "samples": report.samples}
        job = Job(
            method=candidate.method,
            arguments=candidate.arguments,
            model=self._model,
            output=output,
            data=calibration_images(),
            preprocessing=self._subject.preprocessing,
            samples=run.images,
            threads=run.threads,
            memory_mib=run.memory_mib,
        )
        outcome = quantize(job)
        if outcome.status != "done":
            return {"status": outcome.status, "reason": outcome.reason}
        try:
            logits = self._logits(candidate, output)
            report = compare(candidate.name, logits.logits, logits.labels, REFERENCE, self._reference.logits)
        except EmcaError as exc:  # the runtime refuses the quantizer's model: that is a result too
            return {"status": "failed", "reason": exc.problem}
        against = report.reference
        assert against is not None
        return {
            "status": "done",
            "top1": report.top1,
            "samples": report.samples,
            "calibration_images": outcome.samples,
            "agreement": against.agreement,
            "sqnr_db": against.sqnr_db,
            "top1_drop": against.top1_drop,
            "top1_drop_ci95": against.top1_drop_ci95,
        }

    def _logits(self, candidate: Candidate, artifact: Path, precision: str = "int8") -> LogitsResult:
        spec = candidate.spec(artifact, self._run.threads, precision=precision)
        limit, preprocessing = self._run.limit, self._subject.preprocessing
        return LogitsRun(spec, self._tests.path, preprocessing, limit=limit, batch_size=BATCH).collect()


def _in_words(figures: dict[str, Any]) -> str:
    if figures["status"] != "done":
        return str(figures["reason"])
    if "agreement" not in figures:
        return f"top-1 {figures['top1']:.2f}%"
    return f"{_db(figures['sqnr_db'])} dB, same prediction {figures['agreement']:.2f}%, drop {figures['top1_drop']:+.2f} points"


def _db(sqnr_db: float | None) -> str:
    return "exact" if sqnr_db is None else f"{sqnr_db:.1f}"


def show(rows: Sequence[Row], console: Console) -> None:
    """Print a table per network, and for several networks one of the worst figures."""
    subjects = list(dict.fromkeys(row.subject for row in rows))
    for subject in subjects:
        _show_subject(subject, [row for row in rows if row.subject == subject], console)
    if len(subjects) > 1:
        _show_worst([row for row in rows if row.candidate != REFERENCE], console)


def _show_subject(subject: str, rows: Sequence[Row], console: Console) -> None:
    reference = next((row.figures for row in rows if row.candidate == REFERENCE), None)
    base = f": fp32 top-1 {reference['top1']:.2f}% of {reference['samples']:,} images" if reference else ""
    table = Table(title=f"Accuracy, {subject}{base}", title_justify="left", caption=SIMULATION, caption_justify="left")
    table.add_column("quantizer", no_wrap=True)
    for heading in ("SQNR dB", "same prediction %", "top-1 drop, points (95% CI)", "top-1 %"):
        table.add_column(heading, justify="right")
    table.add_column("run in")
    where = None
    for row in rows:
        if row.candidate == REFERENCE:
            continue
        if where not in {None, row.figures["where"]}:
            table.add_section()
        where = row.figures["where"]
        table.add_row(row.candidate, *_cells(row.figures), where)
    console.print(table)


def _cells(figures: dict[str, Any]) -> list[str]:
    if figures["status"] != "done":
        return ["", "", str(figures["reason"]), ""]
    low, high = figures["top1_drop_ci95"]
    drop = f"{figures['top1_drop']:+.2f} ({low:+.2f} to {high:+.2f})"
    return [_db(figures["sqnr_db"]), f"{figures['agreement']:.2f}", drop, f"{figures['top1']:.2f}"]


def _show_worst(rows: Sequence[Row], console: Console) -> None:
    title = "Accuracy over all networks: worst (median)"
    table = Table(title=title, title_justify="left", caption=SIMULATION, caption_justify="left")
    table.add_column("quantizer", no_wrap=True)
    for heading in ("SQNR dB", "same prediction %", "top-1 drop, points", "networks", "failed"):
        table.add_column(heading, justify="right")
    table.add_column("run in")
    for name in dict.fromkeys(row.candidate for row in rows):
        mine = [row.figures for row in rows if row.candidate == name]
        done = [figures for figures in mine if figures["status"] == "done"]
        if done:
            sqnr = [float("inf") if f["sqnr_db"] is None else f["sqnr_db"] for f in done]
            agreement, drop = [f["agreement"] for f in done], [f["top1_drop"] for f in done]
            cells = [
                f"{min(sqnr):.1f} ({median(sqnr):.1f})",
                f"{min(agreement):.2f} ({median(agreement):.2f})",
                f"{max(drop):+.2f} ({median(drop):+.2f})",
            ]
        else:
            cells = ["", "", ""]
        table.add_row(name, *cells, str(len(done)), str(len(mine) - len(done)), mine[0]["where"])
    console.print(table)
