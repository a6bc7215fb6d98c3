"""Results of `layers`: immutable records that convert to JSON and back. Units are in the names."""

from dataclasses import dataclass, field
from typing import Any, Literal

from emca_deploy.results.codec import version

__all__ = [
    "KINDS",
    "SCHEMA_VERSION",
    "ArtifactLayers",
    "Int8Finding",
    "Int8Form",
    "Int8Report",
    "Kind",
    "Layer",
    "LayersReport",
    "Roofline",
]

SCHEMA_VERSION = 1

Kind = Literal["convolution", "attention", "conversion", "pooling", "elementwise", "other"]
KINDS: tuple[Kind, ...] = ("convolution", "attention", "conversion", "pooling", "elementwise", "other")

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


@dataclass(frozen=True)
class Roofline:
    """The peak that this machine reaches with the same runtime and threads, measured just before.

    Attributes:
        gops: Billion operations per second of one large convolution, by precision; a multiply-add is two operations.
        bandwidth_gb_s: GB/s that one large elementwise layer reads and writes; None where it could not be measured.
    """

    gops: dict[str, float]
    bandwidth_gb_s: float | None = None


@dataclass(frozen=True)
class Layer:
    """A layer as the runtime runs it.

    Attributes:
        name, type: Name and type that the runtime gives it.
        kind: Purpose of the layer: everything in an attention's path is attention, except conversions.
        precision: Precision that it computes in.
        median_ms: Median of the profiled calls.
        share_percent: Share of all layers' time.
        nodes: Names of the ONNX nodes in it.
        macs: Multiply-adds of one call; 0 where it has none or its shapes are unknown.
        gops: Billion operations per second; None without multiply-adds.
        intensity: Operations per byte of input, weights and output; None without multiply-adds.
        roof_gops: Attainable value of `gops` at that intensity; None where the roofline lacks that precision.
        utilisation_percent: Share of `roof_gops` that is reached; more than 100 where the data came from a cache.
        bound: Resource that sets the roof.
        slow: Whether it is far below its roof.
    """

    name: str
    type: str
    kind: Kind
    precision: str
    median_ms: float
    share_percent: float
    nodes: tuple[str, ...] = ()
    macs: int = 0
    gops: float | None = None
    intensity: float | None = None
    roof_gops: float | None = None
    utilisation_percent: float | None = None
    bound: Literal["compute", "memory"] | None = None
    slow: bool = False


@dataclass(frozen=True)
class ArtifactLayers:
    """An artifact's layers.

    Attributes:
        layers: Layers in the order of execution.
        sum_ms: Sum of the layers' medians.
        end_to_end_ms: Median of a call without profiling, made in turn with the profiled ones; None for a profile from a file.
        profiled_ms: Median of a profiled call, end to end; None for a profile from a file.
        layers_ms: Median of all layers' time in a profiled call; None for a profile from a file. It is larger than `sum_ms` where
            interruptions lengthen some layer in most calls, but each layer in few.
        share_percent: Share of each kind in the layers' time.
        calls: Number of profiled calls.
        roofline: Peak of this machine; None where it is unknown for the runtime.
        notes: Remarks for the reader.
        int8: Layers that run in INT8, and causes of slowness; None for a float model.
    """

    artifact: str
    backend: str
    precision: str
    batch: int
    threads: int | None
    layers: tuple[Layer, ...]
    sum_ms: float
    end_to_end_ms: float | None
    profiled_ms: float | None
    layers_ms: float | None
    share_percent: dict[str, float]
    calls: int
    roofline: Roofline | None = None
    notes: tuple[str, ...] = ()
    int8: Int8Report | None = None


@dataclass(frozen=True)
class LayersReport:
    """The output of `layers --json`."""

    results: tuple[ArtifactLayers, ...]
    environment: dict[str, Any] = field(default_factory=dict)
    schema_version: int = version(SCHEMA_VERSION)
