"""What runs in INT8 in a quantized model, and what keeps it slow on a backend: records that turn into JSON and back."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Int8Finding", "Int8Form", "Int8Report"]

Int8Form = Literal["qdq", "operators", "dynamic"]
"""Q/DQ pairs around float operators; operators of integers, such as QLinearConv; ranges measured at run time."""


@dataclass(frozen=True)
class Int8Finding:
    """One thing that costs speed or accuracy.

    Attributes:
        kind: a word for it, stable.
        nodes: names of the nodes that have it, in the order they run.
        problem: what it is, in words.
        remedy: what to do.
    """

    kind: str
    nodes: tuple[str, ...]
    problem: str
    remedy: str


@dataclass(frozen=True)
class Int8Report:
    """What a backend makes of a quantized model.

    Attributes:
        backend: its name.
        form: how the model is quantized.
        layers: operators that multiply and add.
        int8_layers: those of them that this backend runs in INT8, as far as the graph tells.
        int8_macs_percent: share of their multiply-adds.
        findings: the worst for speed first.
    """

    backend: str
    form: Int8Form
    layers: int
    int8_layers: int
    int8_macs_percent: float
    findings: tuple[Int8Finding, ...] = ()
