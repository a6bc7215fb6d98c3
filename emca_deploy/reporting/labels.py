"""Where a scatter plot's labels go so that none covers another, a mark or an error bar."""

from collections.abc import Sequence
from dataclasses import dataclass

from emca_deploy.reporting.svg import text_width_px

__all__ = ["Box", "Label", "place_labels"]

_ASCENT, _DESCENT = 11, 4
_STEP = 17
_NEAR = 11


@dataclass(frozen=True)
class Box:
    """A rectangle on the page, pixels; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """Return the area both cover, square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, bounds: "Box") -> float:
        """Return the area that sticks out of `bounds`, square pixels."""
        return (self.right - self.left) * (self.bottom - self.top) - self.overlap(bounds)


@dataclass(frozen=True)
class Label:
    """A placed label.

    Its text starts at (x, y), y being the base line. `near` is the point of it that is nearest to its mark, to which it needs a
    line where it is `far`; `box` is what it covers.
    """

    x: float
    y: float
    near: tuple[float, float]
    far: bool
    box: Box


def place_labels(
    names: Sequence[str], centres: Sequence[tuple[float, float]], taken: Sequence[Box], bounds: Box, lines: Sequence[Box] = ()
) -> list[Label]:
    """Return a place for each name near its centre, one after the other, the nearest that covers nothing.

    Centres are (x, y). `taken` must not be covered, and `lines` should rather not be.
    """
    placed: list[Label] = []
    for name, centre in zip(names, centres, strict=True):
        blocked = [*taken, *(label.box for label in placed)]
        options = _options(text_width_px(name), centre)
        placed.append(min(options, key=lambda label: _cost(label, centre, blocked, bounds) + _crossed(label, lines)))
    return placed


def _cost(label: Label, centre: tuple[float, float], blocked: Sequence[Box], bounds: Box) -> float:
    distance = abs(label.near[0] - centre[0]) + abs(label.near[1] - centre[1])
    return distance + 100 * (sum(label.box.overlap(box) for box in blocked) + 10 * label.box.outside(bounds))


def _crossed(label: Label, lines: Sequence[Box]) -> float:
    """Return what crossing thin lines costs: about as much as being a step or two farther away."""
    return 0.15 * sum(label.box.overlap(line) for line in lines)


def _options(width: float, centre: tuple[float, float]) -> list[Label]:
    """Return places to the right and left of the centre, and above and below it, farther and farther away."""
    x, y = centre
    options = []
    for shift in sorted(range(-12, 13), key=abs):
        middle = y + shift * _STEP
        options.append(_label(x + _NEAR, middle, width, (x + _NEAR - 2, middle), shift != 0))
        options.append(_label(x - _NEAR - width, middle, width, (x - _NEAR + 2, middle), shift != 0))
        if shift:
            nearest = middle + (8 if shift < 0 else -8)
            options.append(_label(x - width / 2, middle, width, (x, nearest), abs(shift) > 1))
    return options


def _label(left: float, middle: float, width: float, near: tuple[float, float], far: bool) -> Label:
    base = middle + (_ASCENT - _DESCENT) / 2 + 1
    return Label(left, base, near, far, Box(left, base - _ASCENT, left + width, base + _DESCENT))
