"""Folders of synthetic sweeps, and synthetic deployments, with samples from a fixed seed."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import write_json
from emca_deploy.results.accuracy import AccuracyReport, ConfidenceBin, Flip, Flips, ReferenceComparison
from emca_deploy.results.codec import to_json
from emca_deploy.results.deploy import DeployCandidate, DeployReport, Picture
from emca_deploy.results.latency import Failure, LatencyResult, ProtocolRecord
from emca_deploy.results.load import LatencySummary
from emca_deploy.results.sweep import CellResult, SweepCell, SweepReport, SweepRow, row_of, with_front
from emca_deploy.results.telemetry import Power, Readings, SourceTelemetry, TelemetryResult, ValueSummary

IMAGES = 10_000
ENVIRONMENT = {
    "fingerprint": "0123456789abcdef", "os": "Linux", "python": "3.11.2",
    "cpu": {"model": "Synthetic processor", "cores": 2}, "versions": {"onnxruntime": "1.22.0", "numpy": "2.1.0"},
}  # fmt: skip
_SPEED = {"fp32": 1.0, "bf16": 0.7, "int8": 0.45}
_LOST = {"fp32": 0, "bf16": 4, "int8": 45}


def cells_of(
    models: Sequence[str] = ("a.onnx", "b.onnx"),
    backends: Sequence[str] = ("onnxruntime", "openvino"),
    precisions: Sequence[str] = ("fp32", "int8"),
    batches: Sequence[int] = (1,),
) -> list[SweepCell]:
    """Return the cells of a matrix on this machine, single-stream."""
    matrix = itertools.product(models, backends, precisions, batches)
    return [SweepCell(m, None, p, b, "cpu", "single-stream", batch, 2) for m, b, p, batch in matrix]


def result_of(cell: SweepCell, seed: int, calls: int = 240, *, labels: bool = True, **changes: Any) -> CellResult:
    """Return the result of a cell; its model's place in the alphabet decides how slow and how accurate it is."""
    rng = random.Random(seed)
    step = ord(cell.model[0]) - ord("a")
    middle = (1 + 0.6 * step) * _SPEED[cell.precision] * cell.batch * (0.8 if cell.backend == "openvino" else 1.0)
    samples = [round(middle * (0.97 + rng.lognormvariate(-3.4, 0.7)), 5) for _ in range(calls)]
    ordered = sorted(samples)
    rank = [ordered[min(int(calls * part), calls - 1)] for part in (0, 0.5, 0.9, 0.95, 0.99, 0.999, 1)]
    summary = LatencySummary(rank[0], middle * 1.02, *rank[1:], middle * 0.05, (rank[1] * 0.99, rank[1] * 1.01))
    rate = 1000 * cell.batch / rank[1]
    protocol = ProtocolRecord("single-stream", "p90", cell.batch, 0, 24, 0.1, 2.0, None, 0.01, 64, "fixed duration", "call")
    power = SourceTelemetry(
        {"total": Power(12.5, 12.5 * rank[1] / cell.batch)},
        {"package_temperature_c": ValueSummary(61.0, 58.0, 64.0, 20)},
        {"total_power_w": _readings(12.5), "package_temperature_c": _readings(61.0)},
    )
    latency = LatencyResult(
        f"shared/{cell.model}", cell.backend, cell.precision, cell.target, cell.scenario, cell.batch, summary, rate, calls,
        80.0, 4.0, 120.0, True, (), tuple(samples), {"threads": cell.threads}, protocol=protocol,
        telemetry=TelemetryResult({"rapl": power}, interval_ms=100.0), block_calls=(calls // 24,) * 24,
        block_builds=tuple(block // 3 for block in range(24)),
    )  # fmt: skip
    lost = _LOST[cell.precision]
    won, top1 = lost // 3, 88.0 + 1.5 * step
    drop = 100 * (lost - won) / IMAGES
    flips = tuple(Flip(index, f"images/{index}.png", 1, 1, 2) for index in range(min(lost + won, 8)))
    against = ReferenceComparison(
        f"shared/{cell.model}",
        top1,
        99.0,
        99.5,
        35.0,
        drop,
        (drop - 0.12, drop + 0.12),
        flips=Flips(lost + won, lost, won, flips),
        ece=1.0,
        reliability=_bins(1.0),
    )
    accuracy = AccuracyReport(
        f"shared/{cell.model}", IMAGES, top1 - drop, 99.0, against, ece=1.2, mean_confidence=90.0, reliability=_bins(1.2)
    )
    inputs = {"cell": to_json(cell), "model": {"sha256": {cell.model: "ab" * 32}}, "emca_deploy": "0.1.0"}
    result = CellResult(
        key=f"{seed:016x}",
        cell=cell,
        inputs=inputs,
        status="done",
        created="2026-01-02T03:04:05+00:00",
        seconds=6.5,
        artifact=latency.artifact,
        file_mib=40.0 * _SPEED[cell.precision],
        latency=latency,
        accuracy=accuracy if labels else None,
        environment=ENVIRONMENT,
    )
    return replace(result, **changes)


def _readings(middle: float) -> Readings:
    return Readings(tuple(index / 10 for index in range(90)), tuple(middle + index % 7 for index in range(90)))


def _bins(gap: float) -> tuple[ConfidenceBin, ...]:
    return tuple(ConfidenceBin(100 * step, 6.5 * step, max(6.5 * step - gap, 0.0)) for step in range(1, 16))


def deployment_of(cells: Sequence[SweepCell]) -> DeployReport:
    """Return a deployment whose candidates have the results of cells of one model, the first as baseline."""
    results = [result_of(cell, seed) for seed, cell in enumerate(cells)]
    candidates = []
    for result in results:
        assert result.latency is not None
        assert result.accuracy is not None
        assert results[0].latency is not None
        ratio = results[0].latency.latency_ms.p50 / result.latency.latency_ms.p50
        name, limits = f"{result.cell.backend} {result.cell.precision}", (ratio * 0.98, ratio * 1.02)
        candidates.append(
            DeployCandidate(name, result.file_mib or 0.0, result.latency, result.accuracy, ratio, limits if candidates else None)
        )
    return DeployReport(
        "a model", candidates[0].name, tuple(candidates), {"method": "minmax"}, {"max_abs": 1e-6}, ENVIRONMENT,
        "emca-deploy deploy", "2026-01-02T03:04:05+00:00", 60.0, pictures=(Picture(0, "images/0.png", 1, 1, "QUJD"),),
    )  # fmt: skip


def failed(result: CellResult) -> CellResult:
    """Return the result as that of a failed cell."""
    failure = Failure(result.cell.name, "the library has no <INT8> kernel", "choose another backend", 3)
    return replace(result, status="failed", latency=None, accuracy=None, environment={}, file_mib=None, failure=failure)


def write_sweep(folder: Path, results: Sequence[CellResult], pending: Sequence[SweepCell] = ()) -> Path:
    """Write the folder of a sweep, and return it."""
    (folder / "cells").mkdir(parents=True)
    for result in results:
        write_json(folder / "cells" / f"{result.key}.json", to_json(result))
    rows = [row_of(result) for result in results]
    rows += [
        SweepRow(f"{index:016x}", cell.name, cell, reason="the budget was spent", estimate_s=9.0)
        for index, cell in enumerate(pending, 2**32)
    ]
    report = SweepReport(
        "plan.toml", "cd" * 32, with_front(tuple(rows)), "0123456789abcdef", "emca-deploy sweep plan.toml -o sweep",
        "2026-01-02T03:04:05+00:00", not pending, ("a.onnx: fp16 is made from a checkpoint",),
    )  # fmt: skip
    write_json(folder / "sweep.json", to_json(report))
    return folder
