"""The recipe of a backend: what it quantizes, and how.

Ranges are measured once and placed for each backend, because a placement that is fast on one is slow on another. For all of them
the attention path from its poolings to its gate stays in float, and weights are INT8 with one scale for each output channel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import onnx_ir as ir

from emca_deploy._machine import cpu_info
from emca_deploy.calibration.placement.quantize import LARGEST_WEIGHT
from emca_deploy.errors import InputError

__all__ = ["Recipe", "Residual", "map_height"]

Residual = Literal["both", "identity", "none"]
"""Operands of a residual Add that are quantized; the identity is its shortcut."""


def map_height(node: ir.Node) -> int:
    """Return the height in pixels of the map (N, C, H, W) that a node reads first; 0 where there is none or it is unknown."""
    value = node.inputs[0] if node.inputs else None
    height = value.shape[2] if value is not None and value.shape is not None and len(value.shape) == 4 else 0
    return height if isinstance(height, int) else 0


@dataclass(frozen=True)
class Recipe:
    """The rules of one backend.

    Attributes:
        backend: name of the backend.
        symmetric: whether activations are int8 with zero point 0 instead of uint8.
        integer_bias: whether biases are INT32 behind a DequantizeLinear instead of float.
        readers: operators without weights whose trunk inputs are quantized; "Gate" is the attention's Mul and "AttentionPool" its
            poolings.
        residual: operands of a residual Add that are quantized.
        every_reader: whether every reader of a quantized tensor reads it quantized.
        outputs: whether the results of quantized operators are quantized, too.
        symmetric_gate: whether a gate's carried input and its result are int8 with zero point 0 in any case.
        fewest_channels: number of input channels below which a convolution stays in float.
        floats: kinds of nodes that read float in any case: "Classifier" is a layer that makes logits or other last results,
            "Branch" a layer that reads what a shortcut also reads, "ConvTranspose" a transposed convolution, and "AttentionPool"
            as in `readers`.
        pass_through: whether operators that only move numbers return INT8 where they read it; it matters with `outputs` only.
        regions: heights of maps, in pixels, and the recipe for the nodes that read a map of that height.
        on_cpu: whether the backend runs on processors, some of which add INT8 products in 16 bits.
        largest_weight: largest magnitude of an INT8 weight.
        fewest_stored: number of weights from which attention layers store them as INT8 and multiply in float; None for never.
        rewrites: functions that turn a graph with its Q/DQ pairs into an equal, faster one, in place.
        explainer: subclass of `Explainer` with the backend's own rules for INT8 files; None takes the common rules.
        half_float_part: whether the float part may be fp16, as where an engine takes its types from the model.
    """

    backend: str
    symmetric: bool
    integer_bias: bool
    readers: frozenset[str]
    residual: Residual
    every_reader: bool = False
    outputs: bool = False
    symmetric_gate: bool = False
    fewest_channels: int = 1
    floats: frozenset[str] = frozenset()
    pass_through: bool = True
    regions: tuple[tuple[int, "Recipe"], ...] = ()
    on_cpu: bool = False
    largest_weight: int = LARGEST_WEIGHT[8]
    fewest_stored: int | None = None
    rewrites: Sequence[Callable[[ir.Graph], object]] = field(default=(), repr=False)
    explainer: Callable[[ir.Graph, str, bool], Any] | None = field(default=None, repr=False)
    half_float_part: bool = field(default=False, repr=False)

    def at(self, node: ir.Node) -> "Recipe":
        """Return the recipe of a node's region, which is this one where the node's map has no region of its own."""
        return dict(self.regions).get(map_height(node), self) if self.regions else self

    @property
    def weight_bits(self) -> int:
        """Number of bits of the weights."""
        return next(bits for bits, largest in LARGEST_WEIGHT.items() if largest == self.largest_weight)

    @property
    def saturates(self) -> bool:
        """Whether this machine's processor adds INT8 products in 16 bits, which 8-bit weights overflow."""
        return self.on_cpu and cpu_info().saturates_int8

    def with_weight_bits(self, weight_bits: int | None) -> "Recipe":
        """Return the recipe with weights of 8 or 7 bits; None takes 7 where this machine's processor saturates with 8.

        Raises:
            InputError: 7 bits for a backend that needs 8.
        """
        if weight_bits is None:
            weight_bits = 7 if self.saturates else 8
        if weight_bits == 7 and not self.on_cpu:
            raise InputError(
                f"weights of 7 bits are for processors without VNNI, and '{self.backend}' does not run on processors",
                "leave --weight-bits out",
            )
        return replace(self, largest_weight=LARGEST_WEIGHT[weight_bits])
