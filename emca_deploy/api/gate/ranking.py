"""Which layer or block to leave in float next. Pure arithmetic on results."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from emca_deploy.results.sensitivity import SensitivityReport, UnitSensitivity

__all__ = ["float_macs_percent", "next_kept"]

OVERHEAD_PERCENT = 1.0
"""What leaving one more part in float costs besides its own multiply-adds, in percent of all: conversions at its borders."""

SMALLEST_HARM_PERCENT = 1.0
"""A part that does less harm than this is not worth a measurement."""

MOST_FLOAT_PERCENT = 75.0
"""With more multiply-adds than this in float, little is left of what INT8 is for."""


def next_kept(report: SensitivityReport, kept: Sequence[str]) -> tuple[str, ...] | None:
    """Return the patterns kept in float with the next one added, or None where none is left that helps.

    The next is the one that does most harm for what it costs in multiply-adds. A block takes the place of its layers.
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
    """Return what a part does to the error: the mean of what it makes alone and of what it takes away when it is left out.

    Where all parts err the same way, taking one away changes little; where two cancel each other, it even makes things worse.
    """
    return (unit.noise_made_percent + unit.noise_removed_percent) / 2


def float_macs_percent(report: SensitivityReport, kept: Sequence[str]) -> float:
    """Return the multiply-adds of what the patterns keep in float, in percent of all that the placement quantizes."""
    layers = (unit for unit in report.units if unit.kind == "layer")
    return sum(layer.macs_percent for layer in layers if any(fnmatchcase(layer.name, pattern) for pattern in kept))
