"""Results of `sensitivity`: immutable records that convert to JSON and back. Units are in the names."""

from dataclasses import dataclass
from typing import Literal

from emca_deploy.results.codec import version

__all__ = ["Cost", "SensitivityReport", "UnitKind", "UnitSensitivity"]

SCHEMA_VERSION = 1
UnitKind = Literal["layer", "block"]


@dataclass(frozen=True)
class Cost:
    """The difference of a partly quantized network's logits, or a detector's last layers, from fp32 on the same images.

    Attributes:
        sqnr_db: Ratio 10 log10(sum fp32^2 / sum (fp32 - quantized)^2); None where the logits are identical.
        flips_percent: Percent of images with another top-1 class than in fp32; None for a detector.
    """

    sqnr_db: float | None
    flips_percent: float | None

    @property
    def noise(self) -> float:
        """The error's power divided by that of the fp32 logits; unlike decibels, it adds up over independent parts."""
        return 0.0 if self.sqnr_db is None else float(10 ** (-self.sqnr_db / 10))


@dataclass(frozen=True)
class UnitSensitivity:
    """The sensitivity of one layer or block.

    Attributes:
        name: Name of the layer's node, or the common start of the names of the block's nodes.
        pattern: Value for `--keep-float` that leaves it in float.
        layers: Number of layers with weights.
        macs_percent: Share of the multiply-adds, of all that the placement quantizes.
        alone: Cost with it in INT8 and everything else in float.
        kept_float: Cost with it in float and everything else in INT8.
        noise_made_percent: Error when it is quantized alone, as a share of the error with everything quantized.
        noise_removed_percent: Share of the error with everything quantized that leaving it in float removes; negative where the
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
    """The output of `sensitivity --json`.

    Attributes:
        artifact: The fp32 model.
        backend: Backend that the placement is for.
        simulated_with: Runtime and version that simulated INT8 in float arithmetic.
        method: Calibration method of the ranges.
        range_samples: Number of images that the ranges come from.
        samples: Number of images that the logits are compared on.
        seed: Random seed of the choice of both.
        int8: Cost with everything in INT8 that the placement quantizes.
        units: Layers and blocks; the one that gains most from staying in float comes first.
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
