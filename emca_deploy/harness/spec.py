"""The harness's view of a candidate: a name and a factory, never a backend."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import TensorSpec, sha256_file
from emca_deploy.errors import ModelError
from emca_deploy.preprocessing import Preprocessing
from emca_deploy.requests import TaskName

__all__ = ["LoadedModel", "RunnerSpec", "Saturable"]


class LoadedModel(Protocol):
    """The part of a runner that the harness uses; every runner of `emca_deploy.backends` has it.

    A runner may also have `device_ms`: the time of the last `infer` by the accelerator's own clock, in milliseconds.
    """

    input: TensorSpec
    output: TensorSpec
    softmax: bool
    task: TaskName

    def open(self) -> None:
        """Load the model."""

    def infer(self, batch: npt.NDArray[Any], /) -> Float32Array:
        """Return the main output (N, ...) float32 of a batch (N, C, H, W) float32, or of the value of `to_native`."""

    def answers(self) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs of the last `infer` that the task reads, by name, if it reads several."""

    def to_native(self, batch: Float32Array, /) -> npt.NDArray[Any]:
        """Return a batch (N, C, H, W) float32 in the model's own layout and type."""

    def close(self) -> None:
        """Free everything."""

    def describe(self) -> dict[str, Any]:
        """Return the runtime's version and settings."""


@runtime_checkable
class Saturable(Protocol):
    """A runner whose runtime works on several requests at once; other runners are called one request after the other."""

    def start_offline(self, batch: npt.NDArray[Any], /) -> int:
        """Prepare for concurrent requests with this batch, and return their number.

        Only `run_offline` and `close` are called afterwards.
        """

    def run_offline(self, seconds: float, min_calls: int, max_calls: int, /) -> npt.NDArray[np.int64]:
        """Keep that many requests in flight; return nanoseconds from each one's start to its completion, (requests,) int64.

        After that time, no request starts once `min_calls` have started, and none after `max_calls`; all are complete on return.
        """


@dataclass(frozen=True)
class RunnerSpec:
    """One candidate. It is sent as JSON to the candidate's process, which makes a runner of it.

    Attributes:
        name: Unique name among the candidates of a run, for messages and comparisons.
        factory: Function as "module:function" that returns a runner, not yet open; "" is the registry of backends.
        kwargs: Arguments of the factory; JSON values only.
        artifact: File as the user gave it, for the result.
        group: Name that several specs share if they are measured as one candidate; empty means no group.
        batch: Images per call, where it differs from the protocol: offline, batches are compared by their time per image.
        data: Data set to measure with real images too; empty means none.
        preprocessing: How its images become the model's input; None takes ImageNet's.
        digests: Known sha256 of its files, by path; a process that loads other files refuses them.
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
    data: str = ""
    preprocessing: Preprocessing | None = None
    digests: dict[str, str] = field(default_factory=dict)

    def check_files(self) -> None:
        """Refuse files that changed since the run began; call it when they have been loaded.

        Raises:
            ModelError: a file has changed.
        """
        for path, digest in self.digests.items():
            if sha256_file(Path(path)) != digest:
                problem = f"{path}: changed during the run"
                raise ModelError(problem, "run the command again, and do not change the file while it runs")
