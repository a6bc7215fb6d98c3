"""Where `deploy` measures: one class a kind of target, which knows what is built for it and what runs it there.

Another kind of target is one more class, and one more line in `kinds`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emca_deploy.artifacts import Precision
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.registry import BACKENDS, CPU_BACKENDS, get_builder
from emca_deploy.errors import InputError, MissingError
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.machines.nvidia import check_rtx
from emca_deploy.preprocessing import Size
from emca_deploy.results.latency import ProfileReport
from emca_deploy.targets.candidates import CandidateOptions
from emca_deploy.targets.gpu import GpuTarget
from emca_deploy.targets.gpu_candidates import check_gpu, gpu_specs, onnx_backends
from emca_deploy.targets.registry import parse

__all__ = ["Candidate", "CpuPlace", "GpuPlace", "Models", "Place", "Step", "distinct", "find_places", "kinds"]

TORCH_FACTORY = "emca_deploy.backends.torch.gpu:open_at_size"


@dataclass(frozen=True)
class Models:
    """What a network is as files, before anything is built for a target.

    Attributes:
        checkpoint: the weights; None where they are random.
        fp32: ONNX.
        half: typed fp16 ONNX; None where no place needs it.
        int8: INT8 ONNX by the backend it is placed for.
        image_size: of their input, pixels of a side or (height, width); a checkpoint does not tell it.
        chosen: which network of the checkpoint: arguments `weights` and `prefix` of `load_checkpoint`.
    """

    checkpoint: Path | None
    fp32: Path
    half: Path | None = None
    int8: Mapping[str, Path] = field(default_factory=dict)
    image_size: Size = 224
    chosen: Mapping[str, str | None] = field(default_factory=dict)

    def of(self, backend: str, precision: Precision) -> Path:
        """Return the model that an engine of a backend at a precision is made from."""
        found = {"fp32": self.fp32, "fp16": self.half, "int8": self.int8.get(backend)}[precision]
        assert found is not None  # a place says beforehand what it needs
        return found


@dataclass(frozen=True)
class Candidate:
    """One way to deploy.

    Attributes:
        name: for people; unique within a place.
        path: the file that is shipped.
        spec: what the harness runs.
    """

    name: str
    path: Path
    spec: RunnerSpec


Step = Callable[[], Sequence[Candidate]]
"""Builds a file where one has to be built, and returns what runs it."""


@dataclass(frozen=True)
class Place(ABC):
    """A target of `deploy` that was found to be there.

    Attributes:
        target: with its number, if it has one: "gpu:0".
        backends: that run here.
    """

    target: str
    backends: tuple[str, ...]

    @classmethod
    @abstractmethod
    def find(cls, target: str, asked: Sequence[str]) -> "Place":
        """Look for the target.

        Args:
            target: its name.
            asked: backends to use, of those that run here; empty for all.

        Raises:
            MissingError: the device, or what would run there, is missing.
        """

    @property
    @abstractmethod
    def placements(self) -> tuple[str, ...]:
        """Backends whose INT8 model is needed."""

    @property
    def needs_half(self) -> bool:
        """Whether the fp16 model is needed."""
        return False

    @abstractmethod
    def steps(self, models: Models, threads: int) -> list[Step]:
        """Return what has to be built, the place's baseline first."""

    def record(self) -> AbstractContextManager[dict[str, Any]]:
        """Yield what to tell of the place beside a measurement; it may grow until the end."""
        return nullcontext({})

    def annotate(self, profile: ProfileReport, record: Mapping[str, Any]) -> ProfileReport:
        """Return the measurement with what the record makes doubtful."""
        return profile


@dataclass(frozen=True)
class CpuPlace(Place):
    """The processor of this machine: fp32 and INT8 engines of every backend, ONNX Runtime's fp32 the baseline."""

    @classmethod
    def find(cls, target: str, asked: Sequence[str]) -> "CpuPlace":
        """See that the backends' libraries are installed.

        Raises:
            MissingError: one is not.
        """
        fitting = [name for name in asked or CPU_BACKENDS if BACKENDS[name].builder and not BACKENDS[name].needs_gpu]
        for backend in fitting:
            get_builder(backend)
        return cls(target, tuple(fitting))

    @property
    def placements(self) -> tuple[str, ...]:
        """Backends whose INT8 model is needed: all."""
        return self.backends

    def steps(self, models: Models, threads: int) -> list[Step]:
        """Return an fp32 and an INT8 engine for every backend, fp32 ones first."""
        precisions: tuple[Precision, ...] = ("fp32", "int8")
        return [self._engine(models, backend, precision, threads) for precision in precisions for backend in self.backends]

    def _engine(self, models: Models, backend: str, precision: Precision, threads: int) -> Step:
        def build() -> list[Candidate]:
            path = models.fp32.parent / f"{backend}-{precision}{BACKENDS[backend].engine_suffix}"
            get_builder(backend).build(models.of(backend, precision), path, RunOptions(threads=threads, batch=1))
            # Its idle threads sleep, so that it does not disturb the others.
            arguments = {"backend": backend, "artifact": str(path), "threads": threads, "spin": False}
            name = f"{backend} {precision}"
            spec = RunnerSpec(name, kwargs=arguments, artifact=str(path), backend=backend, precision=precision)
            return [Candidate(name, path, spec)]

        return build


@dataclass(frozen=True)
class GpuPlace(Place):
    """An NVIDIA GPU of this machine: PyTorch as it is, engines built for this GPU, ONNX Runtime's CUDA provider.

    Attributes:
        capability: the GPU's compute capability, "8.9".
    """

    capability: str

    @classmethod
    def find(cls, target: str, asked: Sequence[str]) -> "GpuPlace":
        """Look for the GPU, and for what runs ONNX files on it.

        Raises:
            MissingError: cuda-bindings, the driver, the GPU or a backend's library is missing.
        """
        try:
            capability = check_gpu(GpuTarget.parse(target).device).capability
        except MissingError as exc:  # in words of this command
            raise MissingError(exc.problem, exc.remedy.replace("--target cpu", "--targets cpu")) from exc
        device = GpuTarget.parse(target).device
        fitting = [name for name in asked if BACKENDS[name].on_gpu] if asked else ["torch", *onnx_backends(device)]
        if "tensorrt-rtx" in fitting:
            check_rtx(capability)
        for backend in fitting:
            if BACKENDS[backend].builder:
                get_builder(backend)
        return cls(target, tuple(fitting), capability)

    @property
    def placements(self) -> tuple[str, ...]:
        """Backends whose INT8 model is needed: those that build engines for a GPU."""
        return tuple(backend for backend in self.backends if BACKENDS[backend].needs_gpu)

    @property
    def needs_half(self) -> bool:
        """Whether the fp16 model is needed: by whatever runs ONNX."""
        return self.backends != ("torch",)

    @property
    def _index(self) -> int:
        return GpuTarget.parse(self.target).device

    def steps(self, models: Models, threads: int) -> list[Step]:
        """Return PyTorch in all its variants, then engines in fp32, fp16 and INT8, then ONNX Runtime in fp32 and fp16."""
        found: list[Step] = []
        if "torch" in self.backends and models.checkpoint is not None:
            found.append(self._torch(models.checkpoint, {"image_size": models.image_size, **models.chosen}))
        engines: tuple[Precision, ...] = ("fp32", "fp16", "int8")
        for backend in self.placements:
            found += [self._engine(models, backend, precision, threads) for precision in engines]
        if "onnxruntime" in self.backends:  # its CUDA provider has no INT8 kernels: Q/DQ would only cost
            found.append(self._as_it_is("onnxruntime", models.of("onnxruntime", "fp32"), "onnxruntime-cuda fp32"))
            found.append(self._as_it_is("onnxruntime", models.of("onnxruntime", "fp16"), "onnxruntime-cuda fp16"))
        return found

    def _as_it_is(self, backend: str, path: Path, name: str) -> Step:
        return lambda: self.candidates(backend, path, name)

    def _torch(self, checkpoint: Path, details: Mapping[str, Any]) -> Step:
        def sized(candidate: Candidate) -> Candidate:
            kwargs = {name: candidate.spec.kwargs[name] for name in ("artifact", "device", "batch", "variant")}
            spec = replace(candidate.spec, factory=TORCH_FACTORY, kwargs={**kwargs, **details})
            return replace(candidate, spec=spec)

        return lambda: [sized(candidate) for candidate in self.candidates("torch", checkpoint, "torch")]

    def _engine(self, models: Models, backend: str, precision: Precision, threads: int) -> Step:
        def build() -> list[Candidate]:
            number = f"-gpu{self._index}" if self._index else ""
            path = models.fp32.parent / f"{backend}-{precision}{number}.engine"
            self._build(backend, models.of(backend, precision), path, threads)
            return self.candidates(backend, path, f"{backend} {precision}")

        return build

    def _build(self, backend: str, model: Path, output: Path, threads: int) -> None:
        """Build an engine for this GPU; TensorRT takes the first one it sees, TensorRT-RTX the one that is named."""
        from emca_deploy.backends.tensorrt.builder import TrtBuilder
        from emca_deploy.backends.tensorrt.settings import TrtSettings

        builder = get_builder(backend)
        assert isinstance(builder, TrtBuilder)  # the registry says so
        targets = (self.capability,) if backend == "tensorrt-rtx" else ()
        type(builder)(TrtSettings(targets=targets)).build(model, output, RunOptions(threads=threads, batch=1))

    def candidates(self, backend: str, path: Path, name: str) -> list[Candidate]:
        """Return a file in every way that a backend runs it here, under a short name; nothing is loaded yet."""
        specs = gpu_specs(str(path), [backend], CandidateOptions(batch=1), self._index)
        named = [replace(spec, name=f"{name} {spec.kwargs['variant']}".rstrip()) for spec in specs]
        return [Candidate(spec.name, path, spec) for spec in named]

    def record(self) -> AbstractContextManager[dict[str, Any]]:
        """Yield the GPU, its driver, and its telemetry before and after."""
        return _recorded(self.target)


@contextmanager
def _recorded(target: str) -> Iterator[dict[str, Any]]:
    with GpuTarget.parse(target).hold() as held:
        yield held.record


def kinds() -> dict[str, type[Place]]:
    """Return the kinds of target, by what stands before the colon."""
    from emca_deploy.pipeline.board_place import JetsonPlace  # is made of those above

    return {"cpu": CpuPlace, "gpu": GpuPlace, "jetson": JetsonPlace}


def find_places(targets: Sequence[str], backends: Sequence[str] = ()) -> tuple[Place, ...]:
    """Return where to measure; whatever must be there has been looked for.

    Args:
        targets: "cpu", "gpu", "gpu:1", "jetson"; each once. The first has the baseline.
        backends: to use; none means all that fit a place.

    Raises:
        UnknownNameError: no target or backend of that name.
        InputError: a target is named twice, or a backend runs on none of them.
        MissingError: a device, or a backend's library, is missing.
    """
    names = [_full_name(target) for target in targets]
    if not names or len(set(names)) < len(names):
        raise InputError(f"--targets {','.join(targets)}: names none, or one twice", "for example --targets cpu,gpu")
    for backend in backends:
        if backend not in BACKENDS:
            get_builder(backend)  # says which names there are
    places = tuple(kinds()[_kind(name)].find(name, tuple(dict.fromkeys(backends))) for name in names)
    for backend in backends:
        if not any(backend in place.backends for place in places):
            get_builder(backend)  # not installed, or builds nothing: that comes first
            other = "gpu" if BACKENDS[backend].on_gpu else "cpu"
            raise InputError(f"backend '{backend}' does not run on target {', '.join(names)}", f"add {other} to --targets")
    for place in places:
        if not place.backends:
            raise InputError(f"no backend that was asked for runs on target '{place.target}'", "leave that target out")
    return places


def _kind(target: str) -> str:
    return target.partition(":")[0]


def _full_name(target: str) -> str:
    """Return a target's name, a GPU's with its number.

    Raises:
        UnknownNameError, InputError, MissingError: `deploy` has none of that name.
    """
    found, known = parse(target), ", ".join(kinds())
    if found.kind not in kinds():
        raise InputError(f"target '{target}' is not for this", f"run it on that machine itself: --targets {known}")
    return found.name


def distinct(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return candidates of several places under names of their own: where two share one, the later says its target, too."""
    seen: set[str] = set()
    found: list[Candidate] = []
    for candidate in candidates:
        name = candidate.name if candidate.name not in seen else f"{candidate.name} on {candidate.spec.target}"
        seen.add(name)
        found.append(replace(candidate, name=name, spec=replace(candidate.spec, name=name)))
    return tuple(found)
