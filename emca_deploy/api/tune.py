"""`tune`: the runtime settings that run an artifact fastest on this machine."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from emca_deploy._machine import cpu_info, default_threads
from emca_deploy._progress import Progress
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import Manifest, manifest_path, read_manifest
from emca_deploy.backends.base import Situation
from emca_deploy.backends.registry import names_no_file, tunables
from emca_deploy.harness.measure.tuning import Found, Search, search
from emca_deploy.harness.measure.worker_main import input_shape, make_runner
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.onnx_file.file import OnnxFile
from emca_deploy.requests import TuneRequest
from emca_deploy.results.latency import LatencyResult
from emca_deploy.results.tuning import Numerics, Tunable, TuneReport, Value, Values
from emca_deploy.targets.candidates import CandidateOptions, candidate
from emca_deploy.targets.settings import save_tuned, tuned_here, with_values
from emca_deploy.tasks.inputs import random_images
from emca_deploy.tasks.logits import agreement_percent, signal_to_noise_db

__all__ = ["keep_tuned", "tune"]

OFFLINE_BATCH = 8
BATCHES = (1, 2, 4, 8, 16, 32)
NUMERICS_IMAGES = 64


def tune(
    request: TuneRequest,
    *,
    save: bool = True,
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> TuneReport:
    """Find the fastest settings of an artifact, and keep them in its manifest.

    Args:
        request: the artifact, and how long to search.
        save: whether to keep the settings; `profile` and `validate` then use them on this machine.
        tell: callback that gets a line after each round.
        progress: callback that gets (done, total).

    Raises:
        InputError: the artifact or an option is wrong, or the backend has no settings to tune.
        MissingError: the backend is not installed.
        OutputError: the manifest cannot be written.
        KeyboardInterrupt: an interrupt came before anything was measured.
    """
    base = candidate(request.artifact, request.backend, CandidateOptions(batch=None, untuned=True, io=request.io))
    manifest = None if names_no_file(request.artifact) else read_manifest(Path(request.artifact), verify=False)
    engine = manifest if manifest is not None and manifest.kind == "engine" else None
    fixed = _fixed_batch(request.artifact, engine)
    space = _space(request, base.backend, fixed, is_engine=engine is not None)
    default: Values = {tunable.name: tunable.default for tunable in space}
    batch = fixed or (OFFLINE_BATCH if request.scenario == "offline" else 1)

    def make(name: str, values: Mapping[str, Value]) -> RunnerSpec:
        spec = with_values(base, values)
        # Fixed to its batch, as in `profile`.
        return replace(spec, name=name, kwargs={**spec.kwargs, "batch": spec.batch or batch})

    wanted = Search(make, request.scenario, batch, request.budget_s, request.seed, tell or (lambda line: None))
    found = search(space, wanted, progress)
    numerics = _numerics(make, default, found.best, (batch, request.seed)) if found.is_faster else None
    report = _report(request, base, batch, default, found, numerics)
    return keep_tuned(report) if save else report


def keep_tuned(report: TuneReport) -> TuneReport:
    """Write the settings into the artifact's manifest, if it has one and the search was complete.

    Settings equal to the defaults are written too. The returned report names the file.

    Raises:
        ModelError: the manifest cannot be read.
        OutputError: the manifest cannot be written.
    """
    if not report.complete or not manifest_path(Path(report.artifact)).is_file():
        return report
    changed = {name: value for name, value in report.settings.items() if report.default.get(name) != value}
    record: dict[str, Any] = {
        "backend": report.backend,
        "scenario": report.scenario,
        "batch": report.settings.get("batch", report.batch) if report.scenario == "offline" else report.batch,
        # The number of threads is written even if it is the default, which depends on the machine.
        "values": {**changed, "threads": report.settings["threads"]} if changed else {},
        **tuned_here(report.backend),
        "ratio": report.ratio,
        "ratio_ci95": report.ratio_ci95,
        "verdict": report.verdict,
        "created": report.environment.get("created"),
    }
    return replace(report, saved_to=str(save_tuned(Path(report.artifact), record)))


def _space(request: TuneRequest, backend: str, fixed: int | None, *, is_engine: bool) -> tuple[Tunable, ...]:
    cpu, offline = cpu_info(), request.scenario == "offline"
    most = request.threads_max or cpu.logical_cores
    space = tunables(backend, Situation(cpu, offline, min(default_threads(), most), most, is_engine, request.precisions))
    if offline and fixed is None:
        others = tuple(size for size in BATCHES if size != OFFLINE_BATCH)
        space = (*space, Tunable("batch", OFFLINE_BATCH, others))
    return space


def _fixed_batch(artifact: str, engine: Manifest | None) -> int | None:
    if engine is not None:
        batch = engine.details.get("batch")
        return batch if isinstance(batch, int) else None
    is_model = not names_no_file(artifact) and Path(artifact).suffix.lower() == ".onnx"
    return OnnxFile.open(Path(artifact)).image.batch if is_model else None


def _numerics(
    make: Callable[[str, Mapping[str, Value]], RunnerSpec], default: Values, best: Values, of: tuple[int, int]
) -> Numerics:
    """Compare the logits of the default and the best settings on random images, batch by batch."""
    batch, seed = of
    size = int(best.get("batch", batch))
    same_batch = {**default, "batch": size} if "batch" in default else default
    logits = [
        _logits(make(name, values), size, seed) for name, values in (("default", same_batch), ("best", {**default, **best}))
    ]
    agreement = agreement_percent(*logits)
    sqnr_db = signal_to_noise_db(logits[0], logits[1])
    return Numerics(len(logits[0]), agreement, sqnr_db if sqnr_db is None or isfinite(sqnr_db) else 0.0)


def _logits(spec: RunnerSpec, batch: int, seed: int) -> Float32Array:
    runner = make_runner(spec)
    runner.open()
    try:
        random = np.random.default_rng(seed)
        shape = input_shape(runner.input, batch)
        batches = -(-NUMERICS_IMAGES // batch)
        return np.concatenate([runner.infer(random_images(random, shape, runner.to_native)).copy() for _ in range(batches)])
    finally:
        runner.close()


def _notes(found: Found, numerics: Numerics | None) -> tuple[str, ...]:
    notes = []
    if found.best and found.confirmed is None and found.complete:
        notes.append("the budget left no time to confirm the fastest settings: give a larger --budget")
    if numerics is not None and numerics.sqnr_db is not None:
        notes.append(
            f"the logits change: {numerics.agreement:.1f} % of {numerics.images} random images keep their class, "
            f"{numerics.sqnr_db:.1f} dB; check with `emca-deploy validate`"
        )
    refused = {tuple(changed.items()): why for done in found.rounds for changed, why in done.refused}
    for changed, why in refused.items():
        notes.append(f"{', '.join(f'{name}={value}' for name, value in changed)}: refused by the runtime: {why}")
    return tuple(notes)


def _report(
    request: TuneRequest, base: RunnerSpec, batch: int, default: Values, found: Found, numerics: Numerics | None
) -> TuneReport:
    results: tuple[LatencyResult | None, ...] = found.last.results if found.last else (None, None)
    first, last = results[0], results[1]
    confirmed = found.confirmed
    return TuneReport(
        artifact=request.artifact,
        backend=base.backend,
        scenario=request.scenario,
        batch=batch,
        default=default,
        best=found.best,
        settings={**default, **found.best} if found.is_faster else default,
        verdict=confirmed.verdict if confirmed else "no difference shown",
        ratio=confirmed.ratio_p50 if confirmed else None,
        ratio_ci95=confirmed.ratio_ci95 if confirmed else None,
        default_p50_ms=first.latency_ms.p50 if first else None,
        best_p50_ms=last.latency_ms.p50 if last else None,
        default_images_per_s=first.throughput_images_per_s if first else None,
        best_images_per_s=last.throughput_images_per_s if last else None,
        rounds=tuple(found.rounds),
        seconds=round(found.seconds, 1),
        complete=found.complete,
        numerics=numerics,
        notes=_notes(found, numerics),
        environment=dict(found.environment),
    )
