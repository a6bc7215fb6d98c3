"""What quantizing each part of a network costs its logits, as an immutable, versioned record. Units are in the names."""

from dataclasses import dataclass
from typing import Literal

from emca_deploy.results.codec import version

__all__ = ["Cost", "SensitivityReport", "UnitKind", "UnitSensitivity"]

SCHEMA_VERSION = 1
UnitKind = Literal["layer", "block"]


@dataclass(frozen=True)
class Cost:
    """What a partly quantized network's logits lost against fp32 on the same images.

    Attributes:
        sqnr_db: 10 log10(sum fp32^2 / sum (fp32 - quantized)^2); None where they are identical.
        flips_percent: images with another top-1 class than in fp32.
    """

    sqnr_db: float | None
    flips_percent: float

    @property
    def noise(self) -> float:
        """The power of the error over that of the fp32 logits; that of independent parts adds up, unlike decibels."""
        return 0.0 if self.sqnr_db is None else float(10 ** (-self.sqnr_db / 10))


@dataclass(frozen=True)
class UnitSensitivity:
    """One layer or block.

    Attributes:
        name: name of the layer's node, or what the names of the block's nodes begin with.
        kind: "layer" or "block".
        pattern: what `--keep-float` takes to leave it in float.
        layers: how many layers with weights it has.
        macs_percent: its multiply-adds, of all that the placement quantizes.
        alone: the cost with it in INT8 and everything else in float.
        kept_float: the cost with it in float and everything else in INT8.
        noise_made_percent: its error when quantized alone, of the error with everything quantized.
        noise_removed_percent: by how much leaving it in float lowers the error with everything quantized; negative where the
            error grows.
    """

    name: str
    kind: UnitKind
    pattern: str
    layers: int
    macs_percent: float
    alone: Cost
    kept_float: Cost
    noise_made_percent: float
    noise_removed_percent: float


@dataclass(frozen=True)
class SensitivityReport:
    """What `sensitivity --json` prints.

    Attributes:
        artifact: the fp32 model.
        backend: whose placement.
        simulated_with: the runtime that computed it, in float arithmetic, with its version.
        method: calibration method of the ranges.
        range_samples: images the ranges come from.
        samples: images the logits are compared on.
        seed: random seed of the choice of both.
        int8: the cost with everything quantized that the placement quantizes.
        units: layers and blocks, the one first whose stay in float helps most.
    """

    artifact: str
    backend: str
    simulated_with: str
    method: str
    range_samples: int
    samples: int
    seed: int
    int8: Cost
    units: tuple[UnitSensitivity, ...]
    schema_version: int = version(SCHEMA_VERSION)
