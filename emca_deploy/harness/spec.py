"""What the harness is told about a candidate: a name and a factory, never a backend."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import TensorSpec, sha256_file
from emca_deploy.errors import ModelError

__all__ = ["LoadedModel", "RunnerSpec", "Saturable"]


class LoadedModel(Protocol):
    """The part of a runner the harness needs; every runner of `emca_deploy.backends` has it.

    One that can tell also has `device_ms`: how long the last `infer` kept the accelerator, in milliseconds by its own clock.
    """

    input: TensorSpec
    output: TensorSpec
    softmax: bool

    def open(self) -> None:
        """Load the model."""

    def infer(self, batch: npt.NDArray[Any], /) -> Float32Array:
        """Return logits (N, classes) float32 of a batch (N, C, H, W) float32, or of what `to_native` returns."""

    def to_native(self, batch: Float32Array, /) -> npt.NDArray[Any]:
        """Return a batch (N, C, H, W) float32 in the model's own layout and type."""

    def close(self) -> None:
        """Free everything."""

    def describe(self) -> dict[str, Any]:
        """Return what the runtime says of itself."""


@runtime_checkable
class Saturable(Protocol):
    """What a runner has besides, where its runtime can work on several requests at once; others are called in turn."""

    def start_offline(self, batch: npt.NDArray[Any], /) -> int:
        """Get ready for many requests of this batch at once, and return how many will be in flight.

        Only `run_offline` and `close` are called afterwards.
        """

    def run_offline(self, seconds: float, min_calls: int, max_calls: int, /) -> npt.NDArray[np.int64]:
        """Keep that many requests in flight; return nanoseconds from each one's start to its completion, (requests,) int64.

        No request starts after those seconds, once `min_calls` have, nor after `max_calls`; all are done at the return.
        """


@dataclass(frozen=True)
class RunnerSpec:
    """One candidate. It is sent as JSON to the candidate's own process, and becomes a runner there.

    Attributes:
        name: unique among the candidates of a run; used in messages and comparisons.
        factory: "module:function", called with `kwargs`, returning a runner that is not open yet; "" asks the registry of
            backends.
        kwargs: its arguments; JSON values only.
        artifact: the file, as the user gave it; for the result.
        group: specs with the same group are measured as one candidate; empty means no group.
        batch: images a call, where it is not the protocol's: offline, batches are compared by their time per image.
        digests: sha256 by path of the files it is made of, where they are known; a process that loads others refuses.
    """

    name: str
    factory: str = ""
    kwargs: dict[str, Any] = field(default_factory=dict)
    artifact: str = ""
    backend: str = ""
    precision: str = "fp32"
    target: str = "cpu"
    group: str = ""
    batch: int | None = None
    digests: dict[str, str] = field(default_factory=dict)

    def check_files(self) -> None:
        """Refuse files that are not those the run began with; to be called when they have been loaded.

        Raises:
            ModelError: one of them has been changed since.
        """
        for path, digest in self.digests.items():
            if sha256_file(Path(path)) != digest:
                problem = f"{path}: was changed while it was being run"
                raise ModelError(problem, "run the command again, and leave the file as it is meanwhile")
