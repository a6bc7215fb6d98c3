"""What every reader of per-layer times gives, and how it is asked."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import TensorSpec

__all__ = ["LayerProfiler", "RuntimeLayer", "plain_precision"]

_PRECISIONS = {
    "f32": "fp32", "float": "fp32", "f16": "fp16", "float16": "fp16", "bf16": "bf16", "bfloat16": "bf16",
    "i8": "int8", "u8": "int8", "int8": "int8", "uint8": "int8", "i32": "int32", "int32": "int32",
    "i64": "int64", "int64": "int64",
}  # fmt: skip


@dataclass(frozen=True)
class RuntimeLayer:
    """One layer, as the runtime runs it.

    Attributes:
        type: the runtime's word for what it does.
        precision: it computes in: "fp32", "bf16", "fp16", "int8"; "unknown" where the runtime does not say.
        nodes: names of the ONNX nodes it came from, or of their outputs, as far as the runtime tells, the main one first.
        samples_ms: the time of each profiled call, (calls,) in the order they were made; 0 of a call that did without the layer.
    """

    name: str
    type: str
    precision: str
    nodes: tuple[str, ...]
    samples_ms: tuple[float, ...]


class LayerProfiler(ABC):
    """A model that tells its layers' times. A context manager: nothing is loaded before `__enter__`."""

    input: TensorSpec

    @abstractmethod
    def open(self) -> None:
        """Load the model. Sets `input`.

        Raises:
            InputError, ModelError, EngineError: the file is none that may run here.
            MissingError: the runtime is not installed.
        """

    @abstractmethod
    def infer(self, batch: Float32Array) -> None:
        """Make one call that is profiled.

        Raises:
            ModelError: the runtime fails on it.
        """

    @abstractmethod
    def layers(self, skip: int) -> list[RuntimeLayer]:
        """Return the layers that took any time after `skip` calls, in the order of execution; call it once, at the end.

        Raises:
            ModelError: what the runtime wrote cannot be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Free everything; calling it twice is fine."""

    def __enter__(self) -> "LayerProfiler":
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def plain_precision(word: str) -> str:
    """Return our name of a runtime's precision ("I8", "float16"), or "unknown"."""
    return _PRECISIONS.get(word.lower(), "unknown")
