"""Reports in a deployment's form, with latencies from a fixed seed."""

import base64
import io
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from emca_deploy.results.accuracy import AccuracyReport, ReferenceComparison
from emca_deploy.results.deploy import DeployCandidate, DeployReport, Picture
from emca_deploy.results.detection import (
    AveragePrecision,
    ClassPrecision,
    DetectionComparison,
    DetectionFlip,
    DetectionFlips,
    DetectionReport,
)
from emca_deploy.results.latency import LatencyResult
from emca_deploy.results.load import LatencySummary

BASELINE = "onnxruntime fp32"
BASELINE_MS, BASELINE_TOP1 = 8.4, 91.9


def make_candidate(name: str = "openvino int8", **changes: Any) -> DeployCandidate:
    """Return a candidate. `changes`: p50_ms, drop, drop_ci, speedup_ci, agreement, stable, warnings, artifact, labels, samples"""
    p50_ms = changes.get("p50_ms", 2.33)
    rng = random.Random(repr(name))
    samples = sorted(p50_ms * (0.97 + rng.lognormvariate(-3.2, 0.8)) for _ in range(changes.get("samples", 1500)))
    rank = [samples[int(len(samples) * part)] if samples else p50_ms for part in (0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999)]
    p50 = rank[1]
    summary = LatencySummary(
        rank[0], p50 * 1.02, *rank[1:], p50 * 0.1, (p50 * 0.98, p50 * 1.02), *(1.02 * each for each in rank[2:5])
    )
    backend, _, precision = name.partition(" ")
    latency = LatencyResult(
        artifact=changes.get("artifact", f"out/{backend}-{precision}.engine"),
        backend=backend,
        precision=precision,
        target="cpu",
        scenario="single-stream",
        batch=1,
        latency_ms=summary,
        throughput_images_per_s=1000 / p50,
        samples=len(samples),
        load_ms=120.0,
        first_inference_ms=9.1,
        peak_rss_mib=180.0,
        stable=changes.get("stable", True),
        warnings=tuple(changes.get("warnings", ())),
        samples_ms=tuple(rng.sample(samples, len(samples))),
    )
    drop, baseline = changes.get("drop", 0.05), name == BASELINE
    speedup = 1.0 if baseline else BASELINE_MS / p50_ms
    return DeployCandidate(
        name=name,
        file_mib=changes.get("file_mib", 42.7 if precision == "fp32" else 10.9),
        latency=latency,
        accuracy=_accuracy(name, 0.0 if baseline else drop, changes),
        speedup=speedup,
        speedup_ci95=None if baseline else changes.get("speedup_ci", (speedup * 0.98, speedup * 1.02)),
    )


def _accuracy(name: str, drop: float, changes: dict[str, Any]) -> AccuracyReport:
    labels = changes.get("labels", True)
    reference = ReferenceComparison(
        artifact=BASELINE,
        top1=BASELINE_TOP1 if labels else None,
        top5=99.8 if labels else None,
        agreement=100.0 if name == BASELINE else changes.get("agreement", 99.1),
        sqnr_db=None if name == BASELINE else 31.24,
        top1_drop=drop if labels else None,
        top1_drop_ci95=changes.get("drop_ci", (drop - 0.2, drop + 0.25)) if labels else None,
    )
    return AccuracyReport(name, 4000, BASELINE_TOP1 - drop if labels else None, 99.8 if labels else None, reference)


def make_report(*candidates: DeployCandidate, **changes: Any) -> DeployReport:
    """A report of the baseline and `candidates`; `changes` replace fields, `baseline_changes` those of the baseline."""
    baseline = make_candidate(BASELINE, p50_ms=BASELINE_MS, **changes.pop("baseline_changes", {}))
    fields: dict[str, Any] = {
        "title": "emca_eca_resnet18, 10 classes, 64x64",
        "baseline": BASELINE,
        "candidates": (baseline, *candidates),
        "calibration": {"data": "calibration.zip", "samples": 300, "method": "minmax", "seconds": 12.34, "table": "out/t.json"},
        "parity": {"max_abs": 3.1e-6, "max_rel": 2.2e-7, "cosine": 0.9999999, "samples": 12},
        "environment": {
            "cpu": {"model": "Example CPU", "cores": 2, "frequency_mhz": 2600.0, "governor": None},
            "memory_mib": 15872.4,
            "python": "3.11.2",
            "versions": {"numpy": "2.4.6", "openvino": "2026.4.1"},
        },
        "command": "emca-deploy demo -o out",
        "created": "2026-01-02T03:04:05+00:00",
        "seconds": 71.2,
    }
    return DeployReport(**{**fields, **changes})


@pytest.fixture
def candidate() -> Callable[..., DeployCandidate]:
    return make_candidate


@pytest.fixture
def report() -> Callable[..., DeployReport]:
    return make_report


def detected(name: str, drop: float = 0.3, drop_ci: tuple[float, float] = (0.1, 0.45), **changes: Any) -> DetectionReport:
    """Return the accuracy of a detector with masks, whose drop of mask AP is smaller; `changes` are those of the comparison."""
    box, mask = AveragePrecision(60.0, 80.0, 70.0, 40.0, 65.0, None), AveragePrecision(50.0, 75.0, 60.0, 30.0, 55.0, None)
    flips = DetectionFlips(1, 1, 1, 0, 1, (
        DetectionFlip(3, "scene3.png", "lost", 0, 0.81, (10.0, 20.0, 50.0, 60.0), True),
        DetectionFlip(3, "scene3.png", "gained", 1, 0.42, (30.0, 30.0, 90.0, 95.0), False),
    ))  # fmt: skip
    values = {
        "artifact": BASELINE, "box": box, "mask": mask, "compared": 100, "agreement": 99.0, "least_score": 0.3,
        "box_ap_drop": drop, "box_ap_drop_ci95": drop_ci, "mask_ap_drop": drop / 2, "mask_ap_drop_ci95": drop_ci, "flips": flips,
    }  # fmt: skip
    classes = (ClassPrecision(0, "coat", 10, 60.0, 50.0), ClassPrecision(1, "bag", 10, 60.0, 50.0))
    own = AveragePrecision(60.0 - drop, 79.0, 69.0, 39.0, 64.0, None)
    return DetectionReport(name, 200, 900, 1000, own, mask, DetectionComparison(**{**values, **changes}), classes)


@pytest.fixture
def detector() -> DeployReport:
    """Return the deployment of a detector with masks."""
    rows = (make_candidate(BASELINE, p50_ms=BASELINE_MS), make_candidate())
    same = {"flips": DetectionFlips(0, 0, 0, 0, 0), "agreement": 100.0}
    accuracies = (detected(BASELINE, 0.0, (0.0, 0.0), **same), detected("openvino int8"))
    candidates = tuple(replace(row, accuracy=accuracy) for row, accuracy in zip(rows, accuracies, strict=True))
    stream = io.BytesIO()
    Image.new("RGB", (96, 96), (90, 120, 60)).save(stream, "JPEG")
    picture = Picture(3, "scene3.png", 96, 96, base64.b64encode(stream.getvalue()).decode())
    return replace(make_report(), candidates=candidates, pictures=(picture,))


@pytest.fixture
def typical() -> DeployReport:
    return make_report(
        make_candidate("openvino fp32", p50_ms=5.1, drop=0.0, drop_ci=(-0.08, 0.08)),
        make_candidate("onnxruntime int8", p50_ms=4.9, drop=0.35),
        make_candidate("openvino int8"),
    )
