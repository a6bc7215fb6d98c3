"""Places the labels of a scatter plot where they cover no other label, mark or error bar."""

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
        """Return the area that both cover, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, bounds: "Box") -> float:
        """Return the area outside `bounds`, in square pixels."""
        return (self.right - self.left) * (self.bottom - self.top) - self.overlap(bounds)


@dataclass(frozen=True)
class Label:
    """A placed label: its text starts at (x, y) on the base line, and covers `box`.

    `near` is its point nearest to its mark; where it is `far`, a line connects the two.
    """

    x: float
    y: float
    near: tuple[float, float]
    far: bool
    box: Box


def place_labels(
    names: Sequence[str], centres: Sequence[tuple[float, float]], taken: Sequence[Box], bounds: Box, lines: Sequence[Box] = ()
) -> list[Label]:
    """Return for each name the nearest place to its centre (x, y) that covers nothing.

    `taken` must not be covered, and `lines` should preferably not be.
    """
    placed: list[Label] = []
    for name, centre in zip(names, centres, strict=True):
        blocked = [*taken, *(label.box for label in placed)]
        options = _options(text_width_px(name), centre)
        placed.append(min(options, key=lambda label: _cost(label, centre, blocked, lines, bounds)))
    return placed


def _cost(label: Label, centre: tuple[float, float], blocked: Sequence[Box], lines: Sequence[Box], bounds: Box) -> float:
    distance = abs(label.near[0] - centre[0]) + abs(label.near[1] - centre[1])
    crossed = sum(label.box.overlap(line) for line in lines)  # a thin line costs about as much as a step or two
    covered = sum(label.box.overlap(box) for box in blocked) + 10 * label.box.outside(bounds)
    return distance + 0.15 * crossed + 100 * covered


def _options(width: float, centre: tuple[float, float]) -> list[Label]:
    """Return places to the right and left of the centre, and above and below it, with growing distance."""
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
