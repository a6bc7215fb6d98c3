"""What `layers` found, as immutable, versioned records that turn into JSON and back. Units are in the names."""

from dataclasses import dataclass, field
from typing import Any, Literal

from emca_deploy.results.codec import version
from emca_deploy.results.int8 import Int8Report

__all__ = ["KINDS", "SCHEMA_VERSION", "ArtifactLayers", "Kind", "Layer", "LayersReport", "Roofline"]

SCHEMA_VERSION = 1

Kind = Literal["convolution", "attention", "conversion", "pooling", "elementwise", "other"]
KINDS: tuple[Kind, ...] = ("convolution", "attention", "conversion", "pooling", "elementwise", "other")


@dataclass(frozen=True)
class Roofline:
    """What this machine reaches with the same runtime and threads, measured just before.

    Attributes:
        gops: billion operations (a multiply-add is two) a second of one large convolution, by precision.
        bandwidth_gb_s: GB/s of one large elementwise layer, read and written together; None where it could not be measured.
    """

    gops: dict[str, float]
    bandwidth_gb_s: float | None = None


@dataclass(frozen=True)
class Layer:
    """A layer as the runtime runs it.

    Attributes:
        name: the runtime's.
        type: the runtime's word.
        kind: what it is for: all within an attention's path is attention, but for conversions.
        precision: it computes in.
        median_ms: median of the profiled calls, milliseconds.
        share_percent: share of all layers' time.
        nodes: names of the ONNX nodes in it.
        macs: multiply-adds of one call; 0 where it has none or its shapes are not known.
        gops: attained billion operations a second; None without multiply-adds.
        intensity: operations a byte of input, weights and output; None without multiply-adds.
        roof_gops: what is attainable at that intensity; None where the roofline does not have that precision.
        utilisation_percent: attained of attainable. More than 100 where the data came from a cache.
        bound: by what the roof is set.
        slow: far below its roof, and worth looking at.
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
        layers: in the order of execution.
        sum_ms: sum of the layers' medians.
        end_to_end_ms: median of a call without profiling, made in turn with the profiled ones; None of a file's profile.
        profiled_ms: median of a profiled call, end to end; None likewise.
        layers_ms: median of all layers' time in a profiled call; more than `sum_ms` where interruptions lengthen some layer of
            most calls, but each layer in few; None likewise.
        share_percent: share of each kind.
        calls: profiled.
        roofline: None where there is none for this runtime.
        notes: what a reader should know.
        int8: what of a quantized model runs in INT8 there, and what keeps it slow; None of a float one.
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
    """What `layers --json` prints."""

    results: tuple[ArtifactLayers, ...]
    environment: dict[str, Any] = field(default_factory=dict)
    schema_version: int = version(SCHEMA_VERSION)
