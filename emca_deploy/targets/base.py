"""The base class of all targets. Each kind has its own file, and is listed in `registry`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

from emca_deploy._progress import Progress
from emca_deploy.artifacts import Manifest, TensorSpec
from emca_deploy.errors import InputError
from emca_deploy.harness.accuracy.collection import LogitsResult
from emca_deploy.harness.measure.raw_samples import RawSamples
from emca_deploy.harness.measure.worker import Worker
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.requests import BuildRequest, LogitsRequest, ProfileRequest, Request
from emca_deploy.results.latency import ProfileReport
from emca_deploy.targets.capabilities import Capabilities
from emca_deploy.targets.deployment import BuildStep, BuiltCandidate, Deployment, Models
from emca_deploy.targets.load import check_load

__all__ = ["Built", "ChoosePreprocessing", "Part", "Profiled", "Report", "Shared", "Target", "Validated"]

ChoosePreprocessing = Callable[[TensorSpec | None, int | None], Preprocessing]
"""Chooses the preprocessing for a model's input and number of classes; None if one is unknown."""


class Profiled(NamedTuple):
    """The result of `profile`, with the samples of every call."""

    report: ProfileReport
    samples: RawSamples


class Validated(NamedTuple):
    """The result of `validate`: logits, labels and names of the images, with warnings and notes for the user."""

    logits: LogitsResult
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Built(NamedTuple):
    """The result of `build`: the engine's manifest, with notes and warnings for the user."""

    manifest: Manifest
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


Report = Profiled | Validated | Built


@dataclass(frozen=True)
class Shared:
    """State that a deployment keeps on this machine between measuring and validating.

    Attributes:
        stack: Stack that ends the processes.
        workers: Processes that have loaded a candidate, by its name.
        decoded: Folder for decoded images (`data.decoded`); None if there is no space.
    """

    stack: ExitStack = field(default_factory=ExitStack)
    workers: dict[str, Worker] = field(default_factory=dict)
    decoded: Path | None = None


@dataclass(frozen=True)
class Target(ABC):
    """A place that runs requests. To create one touches no device and opens no connection.

    Attributes:
        name: Full name, as `registry.parse` takes it: "cpu", "gpu:1", "jetson", "ssh://user@host/gpu".
    """

    name: str

    kind: ClassVar[str]
    """Part of the name before the colon."""
    is_remote: ClassVar[bool] = False
    """Whether requests run on another machine."""
    builds: ClassVar[bool] = True
    """Whether it takes build requests."""
    has_power_modes: ClassVar[bool] = False
    """Whether requests may name a power mode."""

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> "Target":
        """Return the target that a text of this kind names.

        Raises:
            InputError: the text names no target of this kind.
        """

    @property
    @abstractmethod
    def processor(self) -> "Target":
        """The processor of the same machine, which runs a reference."""

    @property
    def host(self) -> str | None:
        """The machine's address, "[user@]host[:port]"; None for this machine."""
        return None

    @property
    def on_host(self) -> str | None:
        """The target on its machine; None means jetson on a Jetson board, and cpu elsewhere."""
        return self.name

    def check(self, request: Request) -> None:
        """Refuse a request that this target cannot run.

        Raises:
            InputError: the request has an option that this kind of target lacks, or options that do not belong together.
        """
        if isinstance(request, ProfileRequest):
            check_load(request, on_processor=self.is_remote or self.kind == "cpu", here=not self.is_remote)
        if request.power_mode is not None and not self.has_power_modes:
            raise InputError(
                f"--power-mode {request.power_mode}: target '{self.kind}' has no power modes",
                "leave the option out, or add --target jetson on a Jetson board",
            )
        if isinstance(request, BuildRequest) and not self.builds:
            raise InputError(f"target '{self.name}' does not build", "build without --target; profile and validate accept it")

    def notes(self, request: Request) -> tuple[str, ...]:
        """Return notes for the user before the run, such as which artifacts run with tuned settings.

        Raises:
            EmcaError: an artifact or option is wrong.
        """
        del request
        return ()

    def run(self, request: Request, progress: Progress | None = None) -> Report:
        """Run a request by the method for its class."""
        if isinstance(request, ProfileRequest):
            return self.profile(request, progress)
        if isinstance(request, LogitsRequest):
            return self.validate(request, progress)
        return self.build(request, progress)

    @abstractmethod
    def profile(self, request: ProfileRequest, progress: Progress | None = None) -> Profiled:
        """Measure latency. The report lists candidates that failed, unless all did.

        Raises:
            EmcaError: an artifact or option is wrong, something is missing, or no candidate could be measured.
            KeyboardInterrupt: interrupted before there was anything to keep.
        """

    @abstractmethod
    def validate(
        self, request: LogitsRequest, progress: Progress | None = None, choose: ChoosePreprocessing | None = None
    ) -> Validated:
        """Run a data set through a model.

        If the request has no preprocessing, `choose` chooses one, or the model's shape without `choose`.

        Raises:
            EmcaError: the model or the data set is wrong, or something is missing.
        """

    @abstractmethod
    def build(self, request: BuildRequest, progress: Progress | None = None) -> Built:
        """Build an engine, and write it with its manifest.

        Raises:
            EmcaError: the model or an option is wrong, or something is missing.
        """

    @abstractmethod
    def capabilities(self) -> Capabilities:
        """Return what the target's machine can do.

        Raises:
            MissingError: the machine cannot be reached.
        """

    @abstractmethod
    def deployment(self, backends: Sequence[str] = ()) -> Deployment:
        """Return what `deploy` builds and measures on this target with some backends; by default with all that run on it.

        Raises:
            MissingError: the machine, the device or a backend's library is missing.
        """

    @abstractmethod
    def build_step(self, step: BuildStep, models: Models, threads: int | None = None) -> list[BuiltCandidate]:
        """Build what a step of a deployment builds, in the folder of the models.

        Without `threads` an engine has one thread per physical core of the target's machine.

        Returns:
            One candidate for each variant; none if the step needs a checkpoint and there is none.

        Raises:
            EmcaError: the build fails.
        """

    @abstractmethod
    def measure(
        self, parts: "Sequence[Part]", duration_s: float, progress: Progress | None = None, shared: Shared | None = None
    ) -> ProfileReport:
        """Measure the candidates of a deployment on this target's machine; their processes are kept in `shared`, if given.

        Returns:
            A result for every candidate in the order of the parts; `a` of each comparison is a candidate's name.

        Raises:
            EmcaError: a candidate cannot be measured.
        """

    @abstractmethod
    def logits(self, built: BuiltCandidate, request: LogitsRequest, progress: Progress | None, shared: Shared) -> LogitsResult:
        """Run the validation images through a candidate of a deployment, whose artifact and target replace the request's.

        Raises:
            EmcaError: the candidate or the data set is wrong, or something is missing.
        """


@dataclass(frozen=True)
class Part:
    """A target of a deployment with what was built for it, and the power mode that is held while it is measured."""

    target: Target
    deployment: Deployment
    candidates: tuple[BuiltCandidate, ...] = ()
    power_mode: str | None = None
