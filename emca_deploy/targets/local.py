"""Runs requests on this machine. The kinds of target add which candidates there are, and what is held during a run."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from emca_deploy._progress import Progress
from emca_deploy.artifacts import TensorSpec, write_manifest
from emca_deploy.data.choosing import assumed_for
from emca_deploy.harness.accuracy.collection import LogitsResult, LogitsRun
from emca_deploy.harness.measure.hook import Telemetry, available_sources
from emca_deploy.harness.measure.latency import Protocol, measuring
from emca_deploy.harness.measure.protocol import BLOCK_S, FEWEST_PROCESSES
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.requests import BuildRequest, LogitsRequest, ProfileRequest, Request, TrtChoices
from emca_deploy.results.latency import ProfileReport
from emca_deploy.targets.base import Built, ChoosePreprocessing, Part, Profiled, Shared, Target, Validated
from emca_deploy.targets.building import build_engine
from emca_deploy.targets.candidates import CandidateOptions, candidates
from emca_deploy.targets.capabilities import Capabilities, Lack, local_capabilities
from emca_deploy.targets.deployment import BuildStep, BuiltCandidate, Models
from emca_deploy.targets.load import with_images
from emca_deploy.targets.named_artifacts import grouped, split_artifact, split_artifacts
from emca_deploy.telemetry.processor import CpuFrequencySource
from emca_deploy.telemetry.source import TelemetrySource
from emca_deploy.telemetry.thermal import ThermalSource

__all__ = ["Held", "LocalTarget", "candidates_of"]

OFFLINE_BATCH = 8
FEWEST_BLOCKS, FEWEST_PACED_BLOCKS = 10, 5
IDLE_S = 1.0
LONGEST = 6
"""Factor from the least to the longest duration, where the longest is not given."""


@dataclass(frozen=True)
class Held:
    """The machine during a run: facts for the result's environment, warnings, and notes; all may grow."""

    record: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: Callable[[], list[TelemetrySource]] = available_sources


@dataclass(frozen=True)
class LocalTarget(Target):
    """A target on this machine."""

    processes: ClassVar[int] = 1
    """Processes of each candidate where several are compared."""
    load_together: ClassVar[bool] = False
    """Whether all candidates are loaded before the first is measured."""

    @property
    def processor(self) -> Target:
        """The processor of this machine."""
        from emca_deploy.targets.registry import parse

        return parse("cpu")

    @abstractmethod
    def ways(self, path: str, backends: Sequence[str], options: CandidateOptions) -> list[RunnerSpec]:
        """Return a candidate for each way that this target runs a file on some backends, by default on the file's own.

        Raises:
            InputError: there is no such file, or it does not run on that backend.
            MissingError: the backend or the device is missing.
            ModelError: its manifest is damaged, or belongs to another file.
        """

    def candidates(self, artifacts: Sequence[str], backends: Sequence[str], options: CandidateOptions) -> tuple[RunnerSpec, ...]:
        """Return every artifact on every backend, under unique names; see `targets.candidates.candidates`."""
        return candidates(artifacts, backends, options, self.ways)

    def candidate(self, path: str, backend: str | None, options: CandidateOptions) -> RunnerSpec:
        """Return the first of a file's `ways`."""
        return self.candidates([path], [backend] if backend else [], options)[0]

    def lacks(self) -> tuple[Lack, ...]:
        """Return the problems with this target."""
        return ()

    def capabilities(self) -> Capabilities:
        """Return what this machine can do."""
        return local_capabilities(self.lacks())

    def hold(self, power_mode: str | None = None) -> AbstractContextManager[Held]:
        """Yield the machine during a run, in a power mode if one is given.

        Raises:
            MissingError: the device is missing, or the power mode cannot be set.
        """
        del power_mode
        return nullcontext(Held())

    def notes(self, request: Request) -> tuple[str, ...]:
        """Return no notes, but refuse a model that cannot be validated on this machine before another one is run."""
        if isinstance(request, LogitsRequest):
            candidates_of(self, request)
        return ()

    def annotate(self, report: ProfileReport, record: Mapping[str, Any]) -> ProfileReport:
        """Return a report with the warnings that follow from the record of what was held."""
        del record
        return report

    def profile(self, request: ProfileRequest, progress: Progress | None = None) -> Profiled:
        """Measure latency on this machine; see `Target.profile`."""
        self.check(request)
        # A power mode decides how many cores there are, so it is set before candidates are found.
        specs = () if self.has_power_modes else candidates_of(self, request)[0]
        with self.hold(request.power_mode) as held, ExitStack() as stack:
            specs = grouped(specs or candidates_of(self, request)[0], split_artifacts(request.artifacts))
            specs = with_images(specs, request.data)
            sampler = stack.enter_context(_telemetry(held.sources())) if request.telemetry else None
            with measuring(specs, self.protocol(request), progress, sampler, keep_going=True) as run:
                pass
        report = run.report()
        report = replace(report, environment={**report.environment, **held.record})
        return Profiled(self.annotate(report, held.record), run.raw())

    def protocol(self, request: ProfileRequest) -> Protocol:
        """Return how a request is measured."""
        offline = request.scenario == "offline"
        paced = request.scenario == "paced"
        more = paced or request.co_run or bool(request.concurrency or request.data)  # several kinds of blocks in each round
        compared = len(request.artifacts) > 1 or len(request.backends) > 1
        longest_s = request.duration_s * LONGEST if request.max_duration_s is None else request.max_duration_s
        processes = min(self.processes, FEWEST_PROCESSES) if more else self.processes  # few blocks are shared among them
        return Protocol(
            scenario=request.scenario,
            batch=request.batch or (OFFLINE_BATCH if offline else 1),
            warmup_s=request.warmup_s,
            block_s=min(
                BLOCK_S["offline" if more and not paced else request.scenario],
                request.duration_s / (FEWEST_PACED_BLOCKS if paced else FEWEST_BLOCKS),
            ),
            duration_s=request.duration_s,
            max_duration_s=None if more else longest_s,
            seed=request.seed,
            processes=request.processes or (processes if compared else 1),
            rates=request.rates,
            deadline_ms=request.deadline_ms,
            concurrency=request.concurrency,
            co_run=request.co_run,
            real_images=request.data is not None,
            end_to_end=request.end_to_end,
            load_together=self.load_together or request.load_together,
        )

    def answering(self, request: LogitsRequest) -> RunnerSpec:
        """Return the candidate of a request, as it answers images; raises as `ways`."""
        ((spec,), _) = candidates_of(self, request)
        # Images are decoded on the same cores, so the runtime's waiting threads should sleep.
        return replace(spec, kwargs={**spec.kwargs, "spin": False}) if "spin" in spec.kwargs else spec

    def validate(
        self, request: LogitsRequest, progress: Progress | None = None, choose: ChoosePreprocessing | None = None
    ) -> Validated:
        """Run a data set through a model on this machine; see `Target.validate`."""
        self.check(request)
        with self.hold(request.power_mode) as held:
            spec = self.answering(request)

            def chosen(given: TensorSpec, gives: TensorSpec) -> Preprocessing:
                classes = gives.shape[-1]
                return choose(given, classes if isinstance(classes, int) else None) if choose else assumed_for(given, gives)

            used = request.preprocessing or chosen
            run = LogitsRun(
                spec, Path(request.data), used, request.limit, request.batch, images=request.images, task=request.task
            )
            found = run.collect(progress, None if request.logits is None else Path(request.logits))
        return Validated(found, tuple(held.warnings))

    def build(self, request: BuildRequest, progress: Progress | None = None) -> Built:
        """Build an engine on this machine; see `Target.build`."""
        self.check(request)
        with self.hold(request.power_mode) as held:
            manifest = build_engine(request, progress)
            if held.record:
                # TensorRT chooses kernels by timing them, so an engine also depends on its board's power mode.
                details = {**manifest.details, **held.record}
                manifest = write_manifest(Path(request.output), replace(manifest, details=details))
        return Built(manifest, warnings=tuple(held.warnings))

    def build_step(self, step: BuildStep, models: Models, threads: int | None = None) -> list[BuiltCandidate]:
        """Build what a step builds on this machine; see `Target.build_step`."""
        source = models.source(step)
        if source is None:
            return []
        if step.file is None:
            return self.deployed(step, source, models, threads)
        path = models.fp32.parent / step.file
        choices = TrtChoices(targets=step.capabilities)
        build_engine(BuildRequest(str(source), step.backend, str(path), threads=threads, batch=1, choices=choices))
        return self.deployed(step, path, models, threads)

    @abstractmethod
    def deployed(self, step: BuildStep, path: Path, models: Models, threads: int | None) -> list[BuiltCandidate]:
        """Return the candidates for a file that was built for a deployment; nothing is loaded yet."""

    def measure(
        self, parts: Sequence[Part], duration_s: float, progress: Progress | None = None, shared: Shared | None = None
    ) -> ProfileReport:
        """Measure the candidates of all targets of this machine in turn; see `Target.measure`."""
        specs = [candidate.spec for part in parts for candidate in part.candidates]
        processes = min(part.deployment.processes for part in parts)  # loading takes long on accelerators
        protocol = Protocol(duration_s=duration_s, processes=processes, load_together=processes == 1)
        with ExitStack() as stack:
            targets = [(part, part.target) for part in parts if isinstance(part.target, LocalTarget)]
            held = [(target, stack.enter_context(target.hold(part.power_mode))) for part, target in targets]
            for (part, _), (_, machine) in zip(targets, held, strict=True):
                machine.notes.extend(part.deployment.notes)
                machine.warnings.extend(part.deployment.notes)
            living = stack if shared is None else shared.stack
            run = living.enter_context(measuring(specs, protocol, progress))
            if shared is not None:
                shared.workers.update(run.workers)
            report = run.report()
        environment = dict(report.environment)
        for target, machine in held:
            for name, facts in machine.record.items():  # facts of a second GPU are under its target's name
                environment[target.name if name in environment else name] = facts
        report = replace(report, environment=environment)
        for target, machine in held:
            report = target.annotate(report, machine.record)
        return report

    def logits(self, built: BuiltCandidate, request: LogitsRequest, progress: Progress | None, shared: Shared) -> LogitsResult:
        """Run the validation images through a candidate on this machine; see `Target.logits`."""
        used = request.preprocessing or assumed_for
        run = LogitsRun(
            built.spec,
            Path(request.data),
            used,
            request.limit,
            request.batch,
            shared.decoded,
            images=request.images,
            task=request.task,
        )
        return run.collect(progress, worker=shared.workers.get(built.name))


def candidates_of(
    target: LocalTarget, request: ProfileRequest | LogitsRequest
) -> tuple[tuple[RunnerSpec, ...], CandidateOptions]:
    """Return the candidates of a request, and how they run."""
    options = CandidateOptions(request.threads, request.precision, untuned=request.untuned, io=request.io)
    if isinstance(request, LogitsRequest):
        backend, path = split_artifact(request.artifact)
        return (target.candidate(path, backend or request.backend, options),), options
    options = replace(
        options,
        batch=target.protocol(request).batch,
        scenario="single-stream" if request.scenario == "paced" else request.scenario,  # a frame is one call too
        batch_chosen=request.batch is not None,
    )
    return target.candidates(split_artifacts(request.artifacts).artifacts, request.backends, options), options


def _telemetry(sources: list[TelemetrySource]) -> Telemetry:
    """Return what samples this machine; if a source measures power, the idle power is sampled first."""
    has_power = any(not isinstance(source, (CpuFrequencySource, ThermalSource)) for source in sources)
    return Telemetry(sources, idle_s=IDLE_S if has_power else 0.0)
