"""What a backend wants quantized, and how.

What is fast on one runtime is slow on another, so ranges are measured once and placed many times. Common to all: the attention
path between its poolings and its gate stays in float, through the sigmoid; weights are INT8 per output channel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import onnx_ir as ir

from emca_deploy._machine import cpu_info
from emca_deploy.calibration.placement.quantize import LARGEST_WEIGHT
from emca_deploy.errors import InputError
from emca_deploy.results.layers import Int8Report

__all__ = ["Explains", "Recipe"]


class Explains(Protocol):
    """An explainer of one graph, made from the graph, the backend's name and whether the processor saturates."""

    def report(self) -> Int8Report:
        """Return what of the graph runs in INT8, and what is in the way of the rest."""


@dataclass(frozen=True)
class Recipe:
    """What one backend wants.

    Attributes:
        symmetric: int8 activations with zero point 0 instead of uint8 with one.
        integer_bias: INT32 biases behind a DequantizeLinear instead of float ones.
        readers: operators, besides those with weights, whose trunk inputs are quantized; "Gate" is the attention's Mul and
            "AttentionPool" its poolings.
        residual: which operands of a residual Add are quantized.
        every_reader: whatever reads a quantized tensor reads it quantized; nothing reads the float one beside it.
        outputs: also quantize what every quantized operator returns, so that none of it leaves INT8.
        symmetric_gate: int8 with zero point 0 for what a gate scales and what comes of it, whatever `symmetric` says.
        fewest_channels: a convolution that reads fewer stays in float.
        on_cpu: whether it runs on processors, of which some add INT8 products in 16 bits.
        largest_weight: magnitude of an INT8 weight.
        fewest_stored: attention layers that have as many weights keep them as INT8 and multiply in float; None is none.
        rewrites: functions that change a graph with its Q/DQ pairs in place, exactly, into one that is faster.
        explainer: class that says what the backend runs in INT8 of anybody's file; None takes the common rules.
        half_float_part: whether what stays in float may be fp16: only where the model's types are the engine's.
    """

    backend: str
    symmetric: bool
    integer_bias: bool
    readers: frozenset[str]
    residual: Literal["both", "identity", "none"]
    every_reader: bool = False
    outputs: bool = False
    symmetric_gate: bool = False
    fewest_channels: int = 1
    on_cpu: bool = False
    largest_weight: int = LARGEST_WEIGHT[8]
    fewest_stored: int | None = None
    rewrites: Sequence[Callable[[ir.Graph], object]] = field(default=(), repr=False)
    explainer: Callable[[ir.Graph, str, bool], Explains] | None = field(default=None, repr=False)
    half_float_part: bool = field(default=False, repr=False)

    @property
    def weight_bits(self) -> int:
        """How many bits the weights keep to."""
        return next(bits for bits, largest in LARGEST_WEIGHT.items() if largest == self.largest_weight)

    @property
    def saturates(self) -> bool:
        """Whether this machine's processor adds INT8 products in 16 bits, which weights of 8 bits overflow."""
        return self.on_cpu and cpu_info().saturates_int8

    def with_weight_bits(self, weight_bits: int | None) -> "Recipe":
        """Return the recipe with weights of 8 or 7 bits; None is 7 where this machine's processor would saturate with 8.

        Raises:
            InputError: 7 bits for a backend that needs 8.
        """
        if weight_bits is None:
            weight_bits = 7 if self.saturates else 8
        if weight_bits == 7 and not self.on_cpu:
            raise InputError(
                f"7 bits for weights are for processors without VNNI, where '{self.backend}' does not run",
                "leave --weight-bits out",
            )
        return replace(self, largest_weight=LARGEST_WEIGHT[weight_bits])
