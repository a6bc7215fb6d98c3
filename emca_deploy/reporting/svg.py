"""The shapes of the plots as SVG text. All text from outside is escaped here."""

from collections.abc import Sequence
from html import escape

from emca_deploy.reporting.formats import plain

__all__ = [
    "COLOURS", "Point", "box", "document", "fitting", "line", "lines", "marker", "outline", "path", "photograph", "polyline",
    "squares", "swatch", "tag", "text", "text_width_px",
]  # fmt: skip

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
"""Okabe and Ito's colours, which colour-blind people can distinguish, without yellow and black, which a background may hide."""

FONT_PX = 13

Point = tuple[float, float]
"""(x, y) in pixels; y grows downwards."""


def document(name: str, size: tuple[int, int], title: str, description: str, shapes: list[str], margin: int = 0) -> str:
    """Return an accessible SVG element with a unique `name` on its page; `size` is (width, height) in pixels without `margin`."""
    width, height = (length + 2 * margin for length in size)
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-margin} {-margin} {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-labelledby="{name}-title {name}-desc" font-size="{FONT_PX}" fill="currentColor">\n'
        f'<title id="{name}-title">{_safe(title)}</title>\n<desc id="{name}-desc">{_safe(description)}</desc>\n{body}\n</svg>'
    )


def _safe(words: str) -> str:
    return escape(plain(words))


def text(x: float, y: float, words: str, *, anchor: str = "start", muted: bool = False, bold: bool = False) -> str:
    """Return a label; `y` is its base line."""
    style = (' fill-opacity="0.7"' if muted else "") + (' font-weight="600"' if bold else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{_safe(words)}</text>'


def text_width_px(words: str) -> float:
    """Return the approximate width of a label, on the large side."""
    return 0.6 * FONT_PX * len(words)


def fitting(room_px: float) -> int:
    """Return how many characters of a label fit into a width; at least 4."""
    return max(int(room_px / text_width_px("x")), 4)


def line(start: Point, end: Point, *, colour: str = "currentColor", width: float = 1, dash: str = "", opacity: float = 1) -> str:
    """Return a straight line."""
    place = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    return f"<line {place}{_stroke(colour, width, dash, opacity)}/>"


def lines(ends: list[tuple[Point, Point]], *, dash: str = "", opacity: float = 1) -> str:
    """Return several straight lines as one element, which takes less space."""
    places = "".join(f"M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} {end[1]:.1f}" for start, end in ends)
    return f'<path d="{places}"{_stroke("currentColor", 1, dash, opacity)}/>'


def _stroke(colour: str, width: float, dash: str, opacity: float) -> str:
    """Return the attributes of a line that differ from SVG's own values."""
    found = f' stroke="{colour}"'
    found += f' stroke-width="{width:g}"' if width != 1 else ""
    found += f' stroke-opacity="{opacity:g}"' if opacity != 1 else ""
    return found + (f' stroke-dasharray="{dash}"' if dash else "")


def path(points: list[Point], colour: str) -> str:
    """Return a filled outline."""
    steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{steps} Z" fill="{colour}" fill-opacity="0.45" stroke="{colour}" stroke-width="1"/>'


def polyline(points: list[Point], colour: str) -> str:
    """Return a line through points."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def squares(centres: Sequence[Point], radii: Sequence[float], colour: str) -> str:
    """Return filled squares around points as one element; a radius is half a side."""
    steps = "".join(f"M{x - r:.1f} {y - r:.1f}h{2 * r:g}v{2 * r:g}h{-2 * r:g}Z" for (x, y), r in zip(centres, radii, strict=True))
    return f'<path d="{steps}" fill="{colour}" stroke="currentColor" stroke-width="0.5"/>'


def box(left: float, right: float, top: float, height: float, colour: str) -> str:
    """Return a filled rectangle."""
    return path([(left, top), (right, top), (right, top + height), (left, top + height)], colour)


def photograph(size: tuple[int, int], jpeg: str) -> str:
    """Return an image of (width, height); `jpeg` is its file in base64."""
    data = f"data:image/jpeg;base64,{_safe(jpeg)}"
    return f'<image width="{size[0]}" height="{size[1]}" preserveAspectRatio="none" href="{data}"/>'


def outline(corners: tuple[float, float, float, float], colour: str, dash: str = "") -> str:
    """Return the outline of a rectangle x1, y1, x2, y2, with a dark edge that shows on any ground."""
    left, top, right, bottom = corners
    place = (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0):.1f}" height="{max(bottom - top, 0):.1f}" fill="none"'
    )
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'{place} stroke="#000" stroke-width="5" stroke-opacity="0.6"/>{place} stroke="{colour}" stroke-width="2.5"{dashed}/>'


def tag(x: float, y: float, words: str, colour: str) -> str:
    """Return words on a label whose upper left corner is (x, y)."""
    width, height = text_width_px(words) + 6, FONT_PX + 3
    ground = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" fill="#000" stroke="{colour}"/>'
    return f'{ground}<text x="{x + 3:.1f}" y="{y + FONT_PX - 0.5:.1f}" fill="#fff" font-weight="600">{_safe(words)}</text>'


def swatch(index: int) -> str:
    """Return the mark of series `index` as an element of its own, for a legend."""
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" aria-hidden="true">{marker(index, 8, 8)}</svg>'


def marker(index: int, x: float, y: float, radius: float = 6) -> str:
    """Return the mark of series `index`, which has a colour and a shape of its own."""
    r, small, half, wide = radius, 0.9 * radius, 1.25 * radius, 2.5 * radius
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}"',
        f'<path d="M{x - small:.1f} {y - small:.1f} h{2 * small:.1f} v{2 * small:.1f} h{-2 * small:.1f} Z"',
        f'<path d="M{x:.1f} {y - half:.1f} l{half:.1f} {0.85 * wide:.1f} h{-wide:.1f} Z"',
        f'<path d="M{x:.1f} {y - half:.1f} l{half:.1f} {half:.1f} l{-half:.1f} {half:.1f} l{-half:.1f} {-half:.1f} Z"',
        f'<path d="M{x:.1f} {y + half:.1f} l{half:.1f} {-0.85 * wide:.1f} h{-wide:.1f} Z"',
    )
    colour = COLOURS[index % len(COLOURS)]
    return f'{shapes[index % len(shapes)]} fill="{colour}" stroke="currentColor" stroke-width="1"/>'
