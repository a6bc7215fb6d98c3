"""`layers`: times of a runtime's layers, joined with the model's nodes and compared with this machine's roofline."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter_ns, process_time
from typing import Any

import numpy as np

from emca_deploy._progress import Progress
from emca_deploy.api.layer_times.graph import LayerGraph, graph_of, source_of
from emca_deploy.api.layer_times.join import joined, shares
from emca_deploy.api.layer_times.trtexec import read_trtexec
from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import read_manifest
from emca_deploy.backends.base import Runner
from emca_deploy.backends.layer_profiler import LayerProfiler, RuntimeLayer
from emca_deploy.backends.peak_models import PeakModel, write_peak_models
from emca_deploy.backends.records import names_where
from emca_deploy.backends.registry import BACKENDS, backend_of, open_profiler, open_runner, recipe_of
from emca_deploy.calibration.explaining.explainer import explain_file
from emca_deploy.errors import ModelError
from emca_deploy.harness.measure.stability import contention_warnings
from emca_deploy.harness.measure.worker_main import input_shape
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.environment import collect_environment
from emca_deploy.machines.machine_state import read_cpu_times
from emca_deploy.results.layers import ArtifactLayers, LayersReport, Roofline
from emca_deploy.targets.candidates import CandidateOptions, candidates, run_notes
from emca_deploy.targets.named_artifacts import split_artifact
from emca_deploy.tasks.inputs import random_images

__all__ = ["LayersRequest", "layers", "layers_notes"]

CALLS, CALLS_S = 100, 30.0
"""Number of profiled calls of an artifact, and the time in seconds that ends them earlier unless the user gives their number."""

FEWEST_CALLS = 3
WARM_UP, WARM_UP_S = 10, 5.0
"""Number of calls before those that count, and the time in seconds that ends them earlier."""

FEWEST_WARM_UP = 2
SLOW_CALL_S = 0.2
"""Time of a call above which it is a block of its own, so that progress shows."""

PROBE_S = 0.3
PROBE_FEWEST_CALLS = 10
BLOCK = 5
"""Number of calls of one artifact before the next one's turn."""


@dataclass(frozen=True)
class LayersRequest:
    """Options of a layer profile. Other fields are as in `ProfileRequest`.

    Attributes:
        artifacts: "path" or "backend=path"; a .json file is the output of trtexec's --exportProfile.
        calls: number of profiled calls per artifact; None makes 100, or fewer where they take longer than 30 s, at least 3.
        batch: images per call.
        model: the .onnx file that engines were built from, if their manifests do not lead to it.
        layer_info: output of trtexec's --exportLayerInfo, for profiles of trtexec.
        roofline: whether to measure the roofline.
    """

    artifacts: tuple[str, ...]
    backends: tuple[str, ...] = ()
    calls: int | None = None
    batch: int = 1
    threads: int | None = None
    model: Path | None = None
    layer_info: Path | None = None
    roofline: bool = True
    untuned: bool = False
    io: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Run:
    spec: RunnerSpec
    batch: Float32Array
    plain: Runner
    profiled: LayerProfiler
    plain_ms: list[float]
    profiled_ms: list[float]
    warm_up: int = FEWEST_WARM_UP

    def call(self, calls: int) -> None:
        """Make calls without profiling, then as many with it."""
        _timed(lambda: self.plain.infer(self.batch), calls, self.plain_ms)
        _timed(lambda: self.profiled.infer(self.batch), calls, self.profiled_ms)


def layers_notes(request: LayersRequest) -> tuple[str, ...]:
    """Return notes on a run: which artifacts run with tuned settings.

    Raises:
        EmcaError: an artifact or option is wrong.
    """
    return run_notes(_specs(request), _local(request))


def layers(request: LayersRequest, progress: Progress | None = None) -> LayersReport:
    """Profile the layers of every artifact, in turn.

    Raises:
        InputError, ModelError, EngineError: an artifact cannot be profiled on this machine.
        MissingError: a backend is not installed.
    """
    files = [name for name in request.artifacts if name.lower().endswith(".json")]
    specs = _specs(request)
    results = {name: _of_file(name, request) for name in files}
    environment = collect_environment()
    report = progress or (lambda done, total: None)
    rooflines: dict[str, Roofline] = {}
    for spec in specs if request.roofline else ():
        key = _roofline_key(spec)
        if key not in rooflines:
            rooflines[key] = _measure_roofline(spec)
    before, own_before = read_cpu_times(), process_time()
    measured = _profile(specs, request, report) if specs else []
    warnings = contention_warnings(before, read_cpu_times(), process_time() - own_before)
    found = [_result(run, layers, request, rooflines.get(_roofline_key(run.spec))) for run, layers in measured]
    found = [replace(result, notes=(*result.notes, *warnings)) for result in found]
    return LayersReport((*found, *results.values()), environment)


def _local(request: LayersRequest) -> CandidateOptions:
    return CandidateOptions(request.threads, batch=request.batch, untuned=request.untuned, io=request.io)


def _specs(request: LayersRequest) -> tuple[RunnerSpec, ...]:
    """Return the artifacts to run; for an engine of TensorRT, the error says how to get the times of its layers."""
    others = [name for name in request.artifacts if not name.lower().endswith(".json")]
    for name in others:
        own, path = split_artifact(name)
        for given in [own] if own else request.backends or [None]:
            if Path(path).is_file() and BACKENDS[backend_of(Path(path), given)].needs_gpu:
                open_profiler(backend_of(Path(path), given), path)  # raises
    return candidates(others, request.backends, _local(request)) if others else ()


def _profile(specs: Sequence[RunnerSpec], request: LayersRequest, report: Progress) -> list[tuple[_Run, list[RuntimeLayer]]]:
    """Call every artifact with and without profiling, in blocks that take turns."""
    with ExitStack() as stack:
        runs = [_opened(spec, request.batch, stack) for spec in specs]
        for run in runs:
            run.call(FEWEST_WARM_UP)
        warm_up, calls, block = _pace(max(run.plain_ms[-1] + run.profiled_ms[-1] for run in runs) / 1000, request.calls)
        each = warm_up + calls
        done = FEWEST_WARM_UP * len(runs)
        for start in range(FEWEST_WARM_UP, each, block):
            for run in runs:
                run.call(min(block, each - start))
                done += min(block, each - start)
                report(done, each * len(runs))
        for run in runs:
            run.warm_up = warm_up
        return [(run, run.profiled.layers(warm_up)) for run in runs]


def _pace(pair_s: float, wanted: int | None) -> tuple[int, int, int]:
    """Return the number of calls to warm up, of profiled calls, and in a block; a plain and a profiled call take `pair_s`."""
    warm_up = min(WARM_UP, max(FEWEST_WARM_UP, int(WARM_UP_S / pair_s)))
    calls = min(CALLS, max(FEWEST_CALLS, int(CALLS_S / pair_s))) if wanted is None else wanted
    return warm_up, calls, 1 if pair_s > SLOW_CALL_S else BLOCK


def _timed(call: Callable[[], Any], calls: int, into: list[float]) -> None:
    for _ in range(calls):
        start_ns = perf_counter_ns()
        call()
        into.append((perf_counter_ns() - start_ns) / 1e6)


def _opened(spec: RunnerSpec, batch: int, stack: ExitStack) -> _Run:
    try:
        profiled = stack.enter_context(open_profiler(**spec.kwargs))
    except ModelError as exc:
        raise _refused(Path(spec.artifact), spec.backend, exc) from exc
    plain = open_runner(**spec.kwargs)
    stack.enter_context(plain)
    shape = input_shape(plain.input, batch)
    images = random_images(np.random.default_rng(0), shape, plain.to_native)
    return _Run(spec, images, plain, profiled, [], [])


def _refused(artifact: Path, backend: str, error: ModelError) -> ModelError:
    """Return the error for a model that a backend refuses, with the reason if it is quantized for another backend."""
    if artifact.suffix.lower() != ".onnx":
        return error
    found = explain_file(artifact, recipe_of(backend))
    for finding in found.findings if found is not None else ():
        if finding.kind == "integer_operator":
            return ModelError(f"{artifact}: {finding.nodes[0]}: {finding.problem}", finding.remedy)
    return error


def _roofline_key(spec: RunnerSpec) -> str:
    return f"{spec.backend} {spec.kwargs['threads']} {spec.kwargs['precision']}"


def _measure_roofline(spec: RunnerSpec) -> Roofline:
    """Measure the peak speed of an artifact's runtime and threads; a roofline counts the fastest calls."""
    gops: dict[str, float] = {}
    bandwidth_gb_s: float | None = None
    kwargs = {**spec.kwargs, "batch": 1}
    with tempfile.TemporaryDirectory(prefix="emca-probes-") as folder:
        for probe in write_peak_models(Path(folder)):
            layer = _probe_layer(probe, {**kwargs, "artifact": str(probe.path)})
            if layer is None:
                continue
            ms = min(filter(None, layer.samples_ms))
            if probe.macs:
                gops[layer.precision] = max(gops.get(layer.precision, 0.0), 2 * probe.macs / ms / 1e6)
            else:
                bandwidth_gb_s = probe.moved_bytes / ms / 1e6
    return Roofline({name: round(value, 1) for name, value in gops.items()}, bandwidth_gb_s and round(bandwidth_gb_s, 1))


def _probe_layer(probe: PeakModel, kwargs: dict[str, Any]) -> RuntimeLayer | None:
    """Return the slowest layer of a peak model, which is the one to measure."""
    images = np.random.default_rng(0).standard_normal(probe.shape, dtype=np.float32)
    with open_profiler(**kwargs) as profiler:
        end_s = monotonic() + PROBE_S
        calls = 0
        while calls < PROBE_FEWEST_CALLS or monotonic() < end_s:
            profiler.infer(images)
            calls += 1
        layers = [layer for layer in profiler.layers(2) if layer.samples_ms]
    wanted = [layer for layer in layers if "conv" in layer.type.lower()] if probe.macs else layers
    slowest = max(wanted, key=lambda layer: median(layer.samples_ms), default=None)
    return slowest if slowest is not None and median(slowest.samples_ms) > 0 else None


def _result(run: _Run, found: list[RuntimeLayer], request: LayersRequest, roofline: Roofline | None) -> ArtifactLayers:
    artifact = Path(run.spec.artifact)
    source = request.model or source_of(artifact, read_manifest(artifact, verify=False))
    notes = []
    graph = LayerGraph()
    if source is None:
        notes.append("attention share and utilisation are unavailable: the source .onnx file was not found; pass --model")
    else:
        graph = graph_of(source, request.batch)
    layers = joined(found, graph, roofline)
    known = sum(layer.median_ms for layer in layers if layer.nodes or layer.kind == "conversion")
    total = sum(layer.median_ms for layer in layers)
    if source is not None and total and known < 0.9 * total:
        notes.append(f"{100 * (1 - known / total):.0f} % of the time is in layers that could not be traced to the model's nodes")
    return ArtifactLayers(
        artifact=run.spec.artifact,
        backend=run.spec.backend,
        precision=run.spec.precision,
        batch=request.batch,
        threads=run.spec.kwargs["threads"],
        layers=layers,
        sum_ms=total,
        end_to_end_ms=median(run.plain_ms[run.warm_up :]),
        profiled_ms=median(run.profiled_ms[run.warm_up :]),
        # The median over the calls of the time of all layers of a call.
        layers_ms=median(map(sum, zip(*(layer.samples_ms for layer in found), strict=True))),
        share_percent=shares(layers),
        calls=len(run.plain_ms) - run.warm_up,
        roofline=roofline,
        notes=tuple(notes),
        int8=None if source is None else explain_file(source, recipe_of(run.spec.backend)),
    )


def _of_file(name: str, request: LayersRequest) -> ArtifactLayers:
    graph = graph_of(request.model, request.batch) if request.model else LayerGraph()
    found, calls = read_trtexec(Path(name), request.layer_info)
    layers = joined(found, graph, None)
    notes = () if request.model else ("the attention share needs the source .onnx file; pass --model",)
    precisions = [layer.precision for layer in layers if layer.kind == "convolution"]
    return ArtifactLayers(
        artifact=name,
        backend=names_where(trtexec=True)[0],
        precision=max(set(precisions), key=precisions.count) if precisions else "unknown",
        batch=request.batch,
        threads=None,
        layers=layers,
        sum_ms=sum(layer.median_ms for layer in layers),
        end_to_end_ms=None,
        profiled_ms=None,
        layers_ms=None,
        share_percent=shares(layers),
        calls=calls,
        notes=notes,
    )
