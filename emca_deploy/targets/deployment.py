"""Records of what `deploy` builds and measures on a target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from emca_deploy.artifacts import Precision
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.preprocessing import Size

__all__ = ["BuildStep", "BuiltCandidate", "Deployment", "Models", "named_apart"]


@dataclass(frozen=True)
class BuildStep:
    """File that is built, or used directly, for one candidate or its variants.

    Attributes:
        name: Name of the candidate.
        backend: Backend that runs it.
        precision: Precision of the model that it is made from; None for the checkpoint itself.
        file: Name of the engine's file; None if the model or the checkpoint is used directly.
        capabilities: Compute capabilities to compile for; empty if the builder uses the GPU that it finds.
    """

    name: str
    backend: str
    precision: Precision | None
    file: str | None = None
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deployment:
    """Steps of `deploy` on a target; everything they need was found.

    Attributes:
        target: Name of the target.
        backends: Backends that run on it.
        steps: Steps, the target's baseline first.
        processes: Number of processes of each candidate; 1 if loading takes long.
        notes: Candidates left out, each with the reason and what to do.
    """

    target: str
    backends: tuple[str, ...]
    steps: tuple[BuildStep, ...]
    processes: int = 1
    notes: tuple[str, ...] = ()

    @property
    def int8_backends(self) -> tuple[str, ...]:
        """The backends whose INT8 model is needed."""
        return tuple(dict.fromkeys(step.backend for step in self.steps if step.precision == "int8"))

    def without_checkpoints(self) -> "Deployment":
        """Return the deployment without the candidates that run a checkpoint itself."""
        steps = tuple(step for step in self.steps if step.precision is not None)
        return replace(self, steps=steps, backends=tuple(dict.fromkeys(step.backend for step in steps)))

    @property
    def needs_half(self) -> bool:
        """Whether the fp16 model is needed."""
        return any(step.precision == "fp16" for step in self.steps)


@dataclass(frozen=True)
class Models:
    """The files of a network before anything is built for a target.

    Attributes:
        checkpoint: Weights; None if they are random.
        fp32: ONNX model.
        half: Typed fp16 ONNX model; None if no target needs it.
        int8: INT8 ONNX models by the backend that they are placed for.
        image_size: Input size in pixels, of a side or (height, width); a checkpoint does not contain it.
        chosen: Arguments `weights` and `prefix` of `load_checkpoint` that choose the network of the checkpoint.
    """

    checkpoint: Path | None
    fp32: Path
    half: Path | None = None
    int8: Mapping[str, Path] = field(default_factory=dict)
    image_size: Size = 224
    chosen: Mapping[str, str | None] = field(default_factory=dict)

    def source(self, step: BuildStep) -> Path | None:
        """Return the file that a step begins with; None if it is a checkpoint and there is none."""
        if step.precision is None:
            return self.checkpoint
        found = {"fp32": self.fp32, "fp16": self.half, "int8": self.int8.get(step.backend)}[step.precision]
        assert found is not None  # what `Deployment` needs has been made
        return found


@dataclass(frozen=True)
class BuiltCandidate:
    """One way to deploy: the file that is shipped, and what the harness runs."""

    name: str
    path: Path
    spec: RunnerSpec


def named_apart(candidates: Sequence[BuiltCandidate]) -> tuple[BuiltCandidate, ...]:
    """Return candidates with unique names: a name that occurs before gets its target."""
    seen: set[str] = set()
    found: list[BuiltCandidate] = []
    for candidate in candidates:
        name = candidate.name if candidate.name not in seen else f"{candidate.name} on {candidate.spec.target}"
        seen.add(name)
        found.append(replace(candidate, name=name, spec=replace(candidate.spec, name=name)))
    return tuple(found)
