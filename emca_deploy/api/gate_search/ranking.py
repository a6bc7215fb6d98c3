"""The choice of the layer or block to leave in float next: arithmetic on results."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from emca_deploy.results.sensitivity import SensitivityReport, UnitSensitivity

__all__ = ["float_macs_percent", "next_kept"]

OVERHEAD_PERCENT = 1.0
"""Cost of the conversions at the borders of a part in float, in percent of all multiply-adds."""

SMALLEST_HARM_PERCENT = 1.0
"""Least harm of a part that is worth a measurement."""

MOST_FLOAT_PERCENT = 75.0
"""Largest share of multiply-adds in float: above it, INT8 gains little."""


def next_kept(report: SensitivityReport, kept: Sequence[str]) -> tuple[str, ...] | None:
    """Return the patterns kept in float with the next one added, or None if no other helps.

    The next one has the most harm per multiply-add. A block replaces its layers.
    """
    best: tuple[float, tuple[str, ...]] | None = None
    for unit in report.units:
        if unit.pattern in kept or any(fnmatchcase(unit.name, pattern) for pattern in kept):
            continue
        inside = [other for other in report.units if other.pattern in kept and fnmatchcase(other.name, unit.pattern)]
        harm = _harm_percent(unit) - sum(map(_harm_percent, inside))
        cost = unit.macs_percent - sum(other.macs_percent for other in inside)
        wanted = (*(pattern for pattern in kept if pattern not in {other.pattern for other in inside}), unit.pattern)
        if harm < SMALLEST_HARM_PERCENT or float_macs_percent(report, wanted) > MOST_FLOAT_PERCENT:
            continue
        score = harm / (cost + OVERHEAD_PERCENT)
        if best is None or score > best[0]:
            best = score, wanted
    return best[1] if best else None


def _harm_percent(unit: UnitSensitivity) -> float:
    """Return a part's share of the error: the mean of the error it makes alone and of the error that leaving it in float removes.

    Neither is enough: removing one of several similar errors changes little, and errors can cancel each other.
    """
    return (unit.noise_made_percent + unit.noise_removed_percent) / 2


def float_macs_percent(report: SensitivityReport, kept: Sequence[str]) -> float:
    """Return the multiply-adds that the patterns keep in float, in percent of all that the placement quantizes."""
    layers = (unit for unit in report.units if unit.kind == "layer")
    return sum(layer.macs_percent for layer in layers if any(fnmatchcase(layer.name, pattern) for pattern in kept))
