"""What runs in INT8 in a quantized model, and what makes it slow on a backend: records that convert to JSON and back."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Int8Finding", "Int8Form", "Int8Report"]

Int8Form = Literal["qdq", "operators", "dynamic"]
"""Q/DQ pairs around float operators; operators of integers, such as QLinearConv; ranges measured at run time."""


@dataclass(frozen=True)
class Int8Finding:
    """A cause of lost speed or accuracy.

    Attributes:
        kind: Stable identifier of the cause.
        nodes: Names of the nodes that it affects, in execution order.
    """

    kind: str
    nodes: tuple[str, ...]
    problem: str
    remedy: str


@dataclass(frozen=True)
class Int8Report:
    """How a backend runs a quantized model.

    Attributes:
        layers: Number of operators with multiply-adds.
        int8_layers: Number of those that this backend runs in INT8, judging by the graph.
        int8_macs_percent: Share of the multiply-adds that run in INT8.
        findings: Causes of lost speed or accuracy, the worst for speed first.
    """

    backend: str
    form: Int8Form
    layers: int
    int8_layers: int
    int8_macs_percent: float
    findings: tuple[Int8Finding, ...] = ()
