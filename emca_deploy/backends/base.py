"""The two protocols a backend fulfils: run a model, and build an engine from one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from emca_deploy.artifacts import Manifest, TensorSpec

__all__ = ["Builder", "Float32Array", "RunOptions", "Runner"]

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RunOptions:
    """How a runner runs.

    Attributes:
        threads: intra-operator threads; never left to the runtime, whose choice differs from machine to machine.
        precision: compute precision of the float parts: "f32", or "bf16"/"f16" where the runtime has it and one asks.
        batch: a batch size to specialise to where the model's is dynamic; None leaves it dynamic.
        spin: whether idle threads of the runtime may spin; off for interleaved measurements.
    """

    threads: int = 1
    precision: str = "f32"
    batch: int | None = None
    spin: bool = True


class Runner(ABC):
    """A loaded model. A context manager: nothing is loaded and no device touched before `__enter__`.

    `infer` may reuse its output buffer: copy the result if it must outlive the next call.
    """

    input: TensorSpec
    output: TensorSpec

    @abstractmethod
    def open(self) -> None:
        """Load the model. Sets `input` and `output`."""

    @abstractmethod
    def infer(self, batch: Float32Array) -> Float32Array:
        """Return logits (N, classes) float32 of a batch (N, 3, H, W) float32.

        Raises:
            InputError: the batch's shape or dtype does not fit the model.
        """

    @abstractmethod
    def close(self) -> None:
        """Free everything; calling it twice is fine."""

    def describe(self) -> dict[str, Any]:
        """Return what the runtime says of itself once open (version, precision, threads), for the result."""
        return {}

    def __enter__(self) -> "Runner":
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Builder(ABC):
    """Turns an ONNX file into an engine file of one backend."""

    @abstractmethod
    def build(self, model: Path, output: Path, options: RunOptions) -> Manifest:
        """Write the engine to `output` and its manifest beside it, whole or not at all.

        Raises:
            ModelError: the model is not one this backend takes.
            OutputError: `output` cannot be written.
        """
