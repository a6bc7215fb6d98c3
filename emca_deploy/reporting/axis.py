"""A plot's axis: where a value lies, and which ticks to draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from emca_deploy.reporting.formats import fixed

__all__ = ["Axis", "fit_axis"]

LOG_OVER = 5.0
"""Values that differ by more than this are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Axis:
    """A mapping from values to pixels.

    Attributes:
        low: the value at `start_px`.
        high: the value at `end_px`, larger than `low`.
        start_px: may be larger than `end_px`: upright axes grow upwards.
        end_px: where `high` is drawn.
        log: logarithmic; `low` is positive then.
    """

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False

    def px(self, value: float) -> float:
        """Return where a value lies; one beyond the axis lies at its end."""
        value = min(max(value, self.low), self.high)
        part = log10(value / self.low) / log10(self.high / self.low) if self.log else (value - self.low) / (self.high - self.low)
        return self.start_px + part * (self.end_px - self.start_px)

    def ticks(self, gap_px: float = 52) -> list[tuple[float, str]]:
        """Return (value, label) of round values in the axis, at least `gap_px` apart."""
        values = self._log_ticks() if self.log else self._linear_ticks(gap_px)
        kept: list[float] = []
        for value in values:
            if not kept or abs(self.px(value) - self.px(kept[-1])) >= gap_px:
                kept.append(value)
        return [(value, _label(value)) for value in kept]

    def _linear_ticks(self, gap_px: float) -> list[float]:
        wanted = max(abs(self.end_px - self.start_px) / gap_px, 2)
        rough = (self.high - self.low) / wanted
        power = 10.0 ** floor(log10(rough))
        step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
        first = ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, floor(self.high / step + 1e-9) + 1)]

    def _log_ticks(self) -> list[float]:
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        span = log10(self.high / self.low)
        steps = (1,) if span > 3 else (1, 2, 5) if span > 1.2 else range(1, 10)
        return [s * 10.0**p for p in powers for s in steps if self.low * 0.999 <= s * 10.0**p <= self.high * 1.001]


def _label(value: float) -> str:
    """Return a tick's label with as few decimals as it needs."""
    for decimals in range(9):
        if abs(round(value, decimals) - value) <= 1e-9 * abs(value):
            return fixed(value, decimals)
    return fixed(value, 9)


def fit_axis(values: Sequence[float], start_px: float, end_px: float, *, may_be_log: bool = True, margin: float = 0.05) -> Axis:
    """Return an axis that holds all values with a margin on both sides.

    `margin` is the part of the range that is left free on each side. Values further than `LOG_OVER` apart make it logarithmic.
    """
    low, high = min(values), max(values)
    if may_be_log and low > 0 and high / low > LOG_OVER:
        room = (high / low) ** margin
        return Axis(low / room, high * room, start_px, end_px, log=True)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return Axis(low - room, high + room, start_px, end_px)
