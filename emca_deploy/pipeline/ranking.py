"""Which layer or block to leave in float next, and how many images a gate needs. Pure arithmetic on results."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from math import ceil

from emca_deploy.harness.sensitivity_results import SensitivityReport, UnitSensitivity
from emca_deploy.harness.stats import paired_difference_ci

__all__ = ["float_macs_percent", "images_needed", "next_kept", "upper_end_without_difference"]

OVERHEAD_PERCENT = 1.0
"""What leaving one more part in float costs besides its own multiply-adds, in percent of all: conversions at its borders."""

SMALLEST_HARM_PERCENT = 1.0
"""A part that does less harm than this is not worth a measurement."""

MOST_FLOAT_PERCENT = 75.0
"""With more multiply-adds than this in float, little is left of what INT8 is for."""

MOST_IMAGES = 10**8


def next_kept(report: SensitivityReport, kept: Sequence[str]) -> tuple[str, ...] | None:
    """Return the patterns kept in float with the next one added, or None where none is left that helps.

    The next is the one that does most harm for what it costs in multiply-adds. A block takes the place of its layers.

    Args:
        report: the ranking.
        kept: patterns of its units.
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


def upper_end_without_difference(images: int) -> float:
    """Return the upper end of the drop's interval, points, of a model that is right on the very images that fp32 is right on."""
    return 100 * paired_difference_ci(0, 0, images)[1]


def images_needed(only_fp32: int, only_int8: int, images: int, max_drop: float) -> int | None:
    """Return about how many images bring the drop's interval inside the gate, if more of them were like those there are.

    Args:
        only_fp32: images that fp32 alone gets right.
        only_int8: images that INT8 alone gets right.
        images: all of them.
        max_drop: the gate, points.

    Returns:
        The number, to two digits; None where the drop itself is not below the gate.
    """
    if 100 * (only_fp32 - only_int8) / images >= max_drop:
        return None

    def inside(total: int) -> bool:
        lost, won = round(only_fp32 * total / images), round(only_int8 * total / images)
        return 100 * paired_difference_ci(lost, won, total)[1] <= max_drop

    low, high = 1, images
    while not inside(high):
        low, high = high, high * 2
        if high > MOST_IMAGES:
            return None
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if inside(middle) else (middle, high)
    digits = len(str(high)) - 2
    return ceil(high / 10**digits) * 10**digits if digits > 0 else high
