"""A plot's axis: the place of a value, the ticks, and its drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from emca_deploy.reporting import svg
from emca_deploy.reporting.formats import fixed

__all__ = ["FOOT_PX", "Axis", "draw_x", "draw_y", "fit_axis"]

LOG_OVER = 5.0
"""Ratio of values above which an axis is logarithmic."""

FOOT_PX = 48
"""Height that `draw_x` takes below the axis."""


@dataclass(frozen=True)
class Axis:
    """A mapping from values to pixels: `low` is at `start_px` and `high`, which is larger, at `end_px`.

    Vertical axes grow upwards, so their `start_px` is larger than their `end_px`. `low` is positive on a logarithmic axis.
    """

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False

    def px(self, value: float) -> float:
        """Return the place of a value; one beyond the axis is at its end."""
        value = min(max(value, self.low), self.high)
        part = log10(value / self.low) / log10(self.high / self.low) if self.log else (value - self.low) / (self.high - self.low)
        return self.start_px + part * (self.end_px - self.start_px)

    def ticks(self, gap_px: float = 52) -> list[tuple[float, str]]:
        """Return (value, label) of round values on the axis, at least `gap_px` apart."""
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
    """Return a tick's label with as few decimals as possible."""
    for decimals in range(9):
        if abs(round(value, decimals) - value) <= 1e-9 * abs(value):
            return fixed(value, decimals)
    return fixed(value, 9)


def fit_axis(values: Sequence[float], start_px: float, end_px: float, *, may_be_log: bool = True, margin: float = 0.05) -> Axis:
    """Return an axis for all values, with `margin` as a part of the range free on both sides.

    It is logarithmic where positive values differ by more than a factor of `LOG_OVER`, if it may be.
    """
    low, high = min(values), max(values)
    if may_be_log and low > 0 and high / low > LOG_OVER:
        room = (high / low) ** margin
        return Axis(low / room, high * room, start_px, end_px, log=True)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return Axis(low - room, high + room, start_px, end_px)


def draw_x(axis: Axis, top: float, bottom: float, label: str, width_px: float, gap_px: float = 52) -> list[str]:
    """Return the shapes of a horizontal axis at `bottom`, its grid up to `top`, and its labels within `width_px`."""
    ticks = [(axis.px(value), words) for value, words in axis.ticks(gap_px)]
    shapes = [
        svg.lines(
            [((axis.start_px, bottom), (axis.end_px, bottom)), *(((x, bottom), (x, bottom + 5)) for x, _ in ticks)], opacity=0.6
        ),
        svg.lines([((x, bottom), (x, top)) for x, _ in ticks], opacity=0.13),
    ]
    for x, words in ticks:
        half = svg.text_width_px(words) / 2
        shapes.append(svg.text(min(max(x, half), width_px - half), bottom + 19, words, anchor="middle"))
    shapes.append(svg.text((axis.start_px + axis.end_px) / 2, bottom + 39, label, anchor="middle", muted=True))
    return shapes


def draw_y(axis: Axis, left: float, right: float, gap_px: float = 40) -> list[str]:
    """Return the shapes of a vertical axis at `left`, with its grid up to `right`."""
    ticks = [(axis.px(value), words) for value, words in axis.ticks(gap_px)]
    shapes = [
        svg.line((left, axis.start_px), (left, axis.end_px), opacity=0.6),
        svg.lines([((left, y), (right, y)) for y, _ in ticks], opacity=0.13),
    ]
    return shapes + [svg.text(left - 8, y + 4.5, words, anchor="end") for y, words in ticks]
