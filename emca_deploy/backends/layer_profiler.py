"""The interface of all readers of per-layer times."""

from abc import abstractmethod
from dataclasses import dataclass

from emca_deploy.arrays import Float32Array
from emca_deploy.artifacts import TensorSpec
from emca_deploy.backends.base import Loadable

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
        type: The runtime's word for the operation.
        precision: Precision of the computation: "fp32", "bf16", "fp16" or "int8"; "unknown" where the runtime reports none.
        nodes: Names of the ONNX nodes it came from, or of their outputs, as far as the runtime reports them; the main one first.
        samples_ms: Time of each profiled call, (calls,), in the order of the calls; 0 for a call that skipped the layer.
    """

    name: str
    type: str
    precision: str
    nodes: tuple[str, ...]
    samples_ms: tuple[float, ...]


class LayerProfiler(Loadable):
    """A loaded model that records the time of each of its layers.

    Attributes:
        input: Image batch as (N, C, H, W) float32.
    """

    input: TensorSpec

    @abstractmethod
    def infer(self, batch: Float32Array) -> None:
        """Make one profiled call; raise ModelError where the runtime fails."""

    @abstractmethod
    def layers(self, skip: int) -> list[RuntimeLayer]:
        """Return the layers that took any time after `skip` calls, in the order of execution; call it once, at the end.

        Raises:
            ModelError: the runtime's profile cannot be read.
        """


def plain_precision(word: str) -> str:
    """Return this package's name of a runtime's precision ("I8", "float16"), or "unknown"."""
    return _PRECISIONS.get(word.lower(), "unknown")
