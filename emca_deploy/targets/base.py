"""What a target is: somewhere that requests can be run. The kinds are in files of their own, and listed in `registry`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple, overload

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

__all__ = ["Built", "ChoosePreprocessing", "Part", "Profiled", "Report", "Shared", "Target", "Validated"]

ChoosePreprocessing = Callable[[TensorSpec | None, int | None], Preprocessing]
"""Chooses how images become a model's input, given its input and its number of classes; None where those are unknown."""


class Profiled(NamedTuple):
    """What `profile` returns: the results, and every call that was measured."""

    report: ProfileReport
    samples: RawSamples


class Validated(NamedTuple):
    """What `validate` returns: logits labels and names of the images, what makes the run doubtful, and lines for the user."""

    logits: LogitsResult
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Built(NamedTuple):
    """What `build` returns: the engine's manifest, lines for the user, and what makes the engine doubtful."""

    manifest: Manifest
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


Report = Profiled | Validated | Built


@dataclass(frozen=True)
class Shared:
    """What a deployment keeps on this machine between measuring and validating.

    `stack` ends the processes; `workers` are those that have loaded a candidate, by the candidate's name. `decoded` is a folder
    for decoded images, see `data.decoded`; None where there is no room.
    """

    stack: ExitStack = field(default_factory=ExitStack)
    workers: dict[str, Worker] = field(default_factory=dict)
    decoded: Path | None = None


@dataclass(frozen=True)
class Target(ABC):
    """Where requests are run. Making one touches no device and opens no connection.

    Attributes:
        name: the target in full, as `registry.parse` takes it: "cpu", "gpu:1", "jetson", "ssh://user@host/gpu".
    """

    name: str

    kind: ClassVar[str]
    """What stands before the colon."""
    is_remote: ClassVar[bool] = False
    """Whether requests are run on another machine."""
    builds: ClassVar[bool] = True
    """Whether `build` can be asked for it."""
    has_power_modes: ClassVar[bool] = False
    """Whether a power mode may be asked for."""

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> "Target":
        """Return the target of a text that begins with this kind.

        Raises:
            InputError: the text names no target of this kind.
        """

    @property
    @abstractmethod
    def processor(self) -> "Target":
        """The processor of the same machine, where a reference runs."""

    @property
    def host(self) -> str | None:
        """The machine's address, "[user@]host[:port]"; None is this machine."""
        return None

    @property
    def on_host(self) -> str | None:
        """The target on its machine; None is jetson on a Jetson board, and cpu elsewhere."""
        return self.name

    def check(self, request: Request) -> None:
        """Refuse a request that this target never runs. Nothing is opened for it.

        Raises:
            InputError: the request has an option that this kind of target does not have.
        """
        if request.power_mode is not None and not self.has_power_modes:
            raise InputError(
                f"--power-mode {request.power_mode}: target '{self.kind}' has no power modes",
                "leave the option out, or add --target jetson on a Jetson board",
            )
        if isinstance(request, BuildRequest) and not self.builds:
            raise InputError(f"target '{self.name}' does not build", "build without --target; profile and validate run there")

    def notes(self, request: Request) -> tuple[str, ...]:
        """Return what a user should know before the run, such as which artifacts run with tuned settings.

        Raises:
            EmcaError: an artifact or option is wrong.
        """
        del request
        return ()

    @overload
    def run(self, request: ProfileRequest, progress: Progress | None = None) -> Profiled: ...
    @overload
    def run(self, request: LogitsRequest, progress: Progress | None = None) -> Validated: ...
    @overload
    def run(self, request: BuildRequest, progress: Progress | None = None) -> Built: ...

    def run(self, request: Request, progress: Progress | None = None) -> Report:
        """Run a request.

        Raises:
            EmcaError: the request is wrong, or it failed.
            KeyboardInterrupt: interrupted before there was anything to keep.
        """
        if isinstance(request, ProfileRequest):
            return self.profile(request, progress)
        if isinstance(request, LogitsRequest):
            return self.validate(request, progress)
        return self.build(request, progress)

    @abstractmethod
    def profile(self, request: ProfileRequest, progress: Progress | None = None) -> Profiled:
        """Measure latency. A candidate that fails is listed in the report, unless all fail.

        Raises:
            EmcaError: an artifact or option is wrong, something is missing, or no candidate could be measured.
            KeyboardInterrupt: interrupted before there was anything to keep.
        """

    @abstractmethod
    def validate(
        self, request: LogitsRequest, progress: Progress | None = None, choose: ChoosePreprocessing | None = None
    ) -> Validated:
        """Run a data set through a model.

        `choose` chooses the preprocessing where the request has none; without it the model's shape suggests one.

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
            MissingError: it cannot be reached.
        """

    @abstractmethod
    def deployment(self, backends: Sequence[str] = ()) -> Deployment:
        """Return what `deploy` builds and measures on this target. No backends means all that run on it.

        Raises:
            MissingError: the machine, the device or a backend's library is missing.
        """

    @abstractmethod
    def build_step(self, step: BuildStep, models: Models, threads: int | None = None) -> list[BuiltCandidate]:
        """Build what a step of a deployment builds, in the folder of the models, and return what runs it.

        Without threads an engine has one per physical core of the target's machine.

        Returns:
            One candidate, or one for each variant; none where the step needs a checkpoint and there is none.

        Raises:
            EmcaError: the build fails.
        """

    @abstractmethod
    def measure(
        self, parts: "Sequence[Part]", duration_s: float, progress: Progress | None = None, shared: Shared | None = None
    ) -> ProfileReport:
        """Measure the candidates of a deployment on this target's machine.

        `shared` gets the processes that have loaded the candidates; without it they end.

        Returns:
            A result for every candidate in the order of the parts; `a` of each comparison is a candidate's name.

        Raises:
            EmcaError: a candidate cannot be measured.
        """

    @abstractmethod
    def logits(
        self, candidate: BuiltCandidate, request: LogitsRequest, progress: Progress | None = None, shared: Shared | None = None
    ) -> LogitsResult:
        """Run the validation images through a candidate of a deployment. Artifact and target are the candidate's.

        Raises:
            EmcaError: as `validate`.
        """


@dataclass(frozen=True)
class Part:
    """A target of a deployment with what was built for it; `power_mode` is a named board's, held while that is measured."""

    target: Target
    deployment: Deployment
    candidates: tuple[BuiltCandidate, ...] = ()
    power_mode: str | None = None
