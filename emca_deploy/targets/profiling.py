"""What `profile` does once its options are read: a request becomes a report, here on this machine."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from emca_deploy._progress import Progress
from emca_deploy.harness.measure.hook import Telemetry, available_sources
from emca_deploy.harness.measure.latency import Protocol, measure_raw
from emca_deploy.harness.measure.protocol import BLOCK_S
from emca_deploy.harness.measure.raw_samples import RawSamples
from emca_deploy.results.latency import ProfileReport, Scenario
from emca_deploy.targets.candidates import LocalOptions, candidates, run_notes
from emca_deploy.targets.named_artifacts import grouped, split_builds
from emca_deploy.telemetry.processor import CpuFrequencySource
from emca_deploy.telemetry.thermal import ThermalSource

__all__ = ["PROCESSES", "ProfileRequest", "profile_notes", "run_profile"]

OFFLINE_BATCH = 8
FEWEST_BLOCKS = 10
IDLE_S = 1.0
LONGEST = 6
"""Times the least duration, where the most is not said."""
PROCESSES = 8
"""Of each candidate: such as live side by side differ by some percent, and with four the ratio of one file to itself was off by
2 % in 2 tries of 7 (docs/benchmarks.md)."""


@dataclass(frozen=True)
class ProfileRequest:
    """What a user asks of `profile`.

    Attributes:
        artifacts: "path", "backend=path", or either with several paths joined by "+", which are builds of one candidate.
        backends: to run the others on; none means each artifact's own.
        target: "cpu", "gpu" with an index, "jetson" (this board), or another machine: "ssh://host".
        batch: images a call; None is 1, offline 8.
        threads: of each candidate; None is one a physical core.
        precision: of the float parts, where the backend has a choice.
        duration_s: the least that each candidate is measured.
        max_duration_s: the most; None is 6 times the least.
        processes: of each candidate; None is 8 where several are compared on a processor, else 1.
        telemetry: whether clocks, temperatures, power and memory are sampled beside the run.
        untuned: whether to take no notice of tuned settings in manifests.
        io: what is said of the models' input and output: "image_size", "output_name".
        power_mode: of a Jetson board, held for as long as the run takes; None leaves it as it is.
    """

    artifacts: tuple[str, ...]
    backends: tuple[str, ...] = ()
    target: str = "cpu"
    scenario: Scenario = "single-stream"
    batch: int | None = None
    threads: int | None = None
    precision: str = "f32"
    duration_s: float = 5.0
    max_duration_s: float | None = None
    processes: int | None = None
    warmup_s: float = 2.0
    seed: int = 0
    telemetry: bool = True
    power_mode: str | None = None
    untuned: bool = False
    io: Mapping[str, Any] = field(default_factory=dict)

    def local(self) -> LocalOptions:
        """Return how candidates run on this machine."""
        return LocalOptions(
            self.threads,
            self.precision,
            self.protocol().batch,
            self.target,
            scenario=self.scenario,
            untuned=self.untuned,
            batch_chosen=self.batch is not None,
            io=self.io,
        )

    def protocol(self) -> Protocol:
        """Return how it is to be measured."""
        offline = self.scenario == "offline"
        return Protocol(
            scenario=self.scenario,
            batch=self.batch or (OFFLINE_BATCH if offline else 1),
            warmup_s=self.warmup_s,
            block_s=min(BLOCK_S[self.scenario], self.duration_s / FEWEST_BLOCKS),
            duration_s=self.duration_s,
            max_duration_s=self.duration_s * LONGEST if self.max_duration_s is None else self.max_duration_s,
            seed=self.seed,
            processes=self._processes(),
            load_together=self.target.startswith("gpu"),
        )

    def _processes(self) -> int:
        if self.processes is not None:
            return self.processes
        compared = len(self.artifacts) > 1 or len(self.backends) > 1
        return PROCESSES if compared and self.target == "cpu" else 1


def profile_notes(request: ProfileRequest) -> tuple[str, ...]:
    """Return what a user should know before the run: which artifacts run with tuned settings.

    Raises:
        EmcaError: an artifact or option is wrong.
    """
    if request.target != "cpu":
        return ()
    options = request.local()
    return run_notes(candidates(split_builds(request.artifacts).artifacts, request.backends, options), options)


def run_profile(request: ProfileRequest, progress: Progress | None = None) -> tuple[ProfileReport, RawSamples]:
    """Measure, and return the report with all raw samples. A candidate that fails is listed in it, unless all do.

    Raises:
        EmcaError: an artifact or option is wrong, something is missing, or no candidate could be measured.
        KeyboardInterrupt: interrupted before there was anything to keep.
    """
    from emca_deploy.targets.gpu import gpu_candidates, gpu_index

    if request.target.startswith("ssh://"):
        from emca_deploy.targets.ssh.profiling import profile_there

        return profile_there(request, progress)
    protocol, builds = request.protocol(), split_builds(request.artifacts)
    options = request.local()
    if request.target == "jetson":
        from emca_deploy.targets.jetson_candidates import jetson_candidates
        from emca_deploy.targets.jetson_profiling import profile_on_board

        return profile_on_board(
            lambda: grouped(jetson_candidates(builds.artifacts, request.backends, options), builds),
            protocol,
            request.power_mode,
            progress,
            telemetry=request.telemetry,
        )
    gpu = gpu_index(request.target)
    find = candidates if gpu is None else gpu_candidates
    specs = grouped(find(builds.artifacts, request.backends, options), builds)
    with _recorded(gpu) as record, ExitStack() as stack:
        telemetry = stack.enter_context(_telemetry(gpu)) if request.telemetry else None
        report, raw = measure_raw(specs, protocol, progress, telemetry, keep_going=True)
    return replace(report, environment={**report.environment, **record}), raw


def _telemetry(gpu: int | None) -> Telemetry:
    """Return what samples this machine; at rest first where that tells idle power from the run's."""
    bus_id = None
    if gpu is not None:
        from emca_deploy.targets.gpu import check_gpu

        bus_id = check_gpu(gpu).bus_id
    sources = available_sources(gpu_bus_id=bus_id)
    has_power = any(not isinstance(source, (CpuFrequencySource, ThermalSource)) for source in sources)
    return Telemetry(sources, idle_s=IDLE_S if has_power else 0.0)


@contextmanager
def _recorded(gpu: int | None) -> Iterator[dict[str, Any]]:
    """Yield the record of a GPU, or an empty one."""
    if gpu is None:
        yield {}
        return
    from emca_deploy.targets.gpu import gpu_record

    with gpu_record(gpu) as record:
        yield record
