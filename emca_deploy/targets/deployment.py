"""What `deploy` builds and measures on a target, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from emca_deploy.artifacts import Precision
from emca_deploy.harness.spec import RunnerSpec
from emca_deploy.preprocessing import Size

__all__ = ["BuildStep", "BuiltCandidate", "Deployment", "Models", "named_apart"]


@dataclass(frozen=True)
class BuildStep:
    """What is built, or taken as it is, for one candidate, or for the variants of one.

    Attributes:
        name: the candidate's, for people.
        backend: the backend that runs it.
        precision: precision of the model that it is made from; None where it is the checkpoint itself.
        file: name of the engine's file; None where the model or the checkpoint is run as it is.
        capabilities: compute capabilities to compile for; empty where the builder finds its GPU.
    """

    name: str
    backend: str
    precision: Precision | None
    file: str | None = None
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deployment:
    """What `deploy` does on a target; whatever it needs has been looked for.

    Attributes:
        target: the target's name.
        backends: the backends that run there.
        steps: what is built, the target's baseline first.
        processes: processes of each candidate; 1 where loading takes long.
        notes: what is left out, each with the reason and what to do.
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

    @property
    def needs_half(self) -> bool:
        """Whether the fp16 model is needed."""
        return any(step.precision == "fp16" for step in self.steps)


@dataclass(frozen=True)
class Models:
    """A network as files, before anything is built for a target.

    Attributes:
        checkpoint: the weights; None where they are random.
        fp32: ONNX.
        half: typed fp16 ONNX; None where no target needs it.
        int8: INT8 ONNX by the backend it is placed for.
        image_size: size of their input, pixels of a side or (height, width); a checkpoint does not say it.
        chosen: which network of the checkpoint: arguments `weights` and `prefix` of `load_checkpoint`.
    """

    checkpoint: Path | None
    fp32: Path
    half: Path | None = None
    int8: Mapping[str, Path] = field(default_factory=dict)
    image_size: Size = 224
    chosen: Mapping[str, str | None] = field(default_factory=dict)

    def source(self, step: BuildStep) -> Path | None:
        """Return the file that a step begins with; None where there is no checkpoint."""
        if step.precision is None:
            return self.checkpoint
        found = {"fp32": self.fp32, "fp16": self.half, "int8": self.int8.get(step.backend)}[step.precision]
        assert found is not None  # `Deployment` says beforehand what it needs
        return found


@dataclass(frozen=True)
class BuiltCandidate:
    """One way to deploy: the file that is shipped, and what the harness runs on the machine of its target."""

    name: str
    path: Path
    spec: RunnerSpec


def named_apart(candidates: Sequence[BuiltCandidate]) -> tuple[BuiltCandidate, ...]:
    """Return candidates under names of their own: where two targets share one, the later one's also names its target."""
    seen: set[str] = set()
    found: list[BuiltCandidate] = []
    for candidate in candidates:
        name = candidate.name if candidate.name not in seen else f"{candidate.name} on {candidate.spec.target}"
        seen.add(name)
        found.append(replace(candidate, name=name, spec=replace(candidate.spec, name=name)))
    return tuple(found)
