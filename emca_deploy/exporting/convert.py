"""fp32 model to fp16 model, checked."""

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from emca_deploy.arrays import Float32Array
from emca_deploy.exporting.half import HalfGraph, to_half
from emca_deploy.exporting.half_layers import attention_nodes, beyond_range
from emca_deploy.exporting.half_parity import check_half, peaks_and_logits, roundings
from emca_deploy.exporting.parity import Parity

__all__ = ["HalfConversion", "convert_to_half"]


@dataclass(frozen=True)
class HalfConversion:
    """A conversion that passed.

    Attributes:
        graph: which nodes are fp16 and which are not, and what became of the weights.
        parity: with the fp32 model, on the given images.
        tolerance: the largest relative error that was allowed.
        roundings: to fp16, on the longest way through the network.
    """

    graph: HalfGraph
    parity: Parity
    tolerance: float
    roundings: int

    def to_dict(self) -> dict[str, Any]:
        """Return what a manifest records."""
        return {
            **self.graph.to_dict(),
            "tolerance": self.tolerance,
            "roundings": self.roundings,
        }


def convert_to_half(model: ir.Model, images: Float32Array) -> HalfConversion:
    """Turn an fp32 model into a typed fp16 one, in place, and check it against itself as it was.

    Args:
        model: what `export_onnx` returns, or another float32 classifier with named nodes and its constants as initializers.
        images: that its activations' range and its parity are measured on, (N, 3, S, S) float32.

    Raises:
        GateError: the fp16 logits differ by more than rounding explains.
        ModelError: the model is quantized or does not say its tensors' types, nothing of it fits fp16, or ONNX Runtime does not
            run it.
    """
    peaks, logits = peaks_and_logits(model, images)
    keep = beyond_range(model.graph, peaks) | attention_nodes(model.graph)
    graph = to_half(model, keep)
    parity, tolerance = check_half(model, images, logits)
    return HalfConversion(graph, parity, tolerance, roundings(model.graph))
