"""How right a classifier's confidences are, and the images whose class differs from the reference's."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emca_deploy.reporting import svg
from emca_deploy.reporting.axis import FOOT_PX, Axis, draw_x, draw_y
from emca_deploy.reporting.details.latency import LEFT
from emca_deploy.reporting.formats import fixed, plain
from emca_deploy.results.accuracy import AccuracyReport, ConfidenceBin, Flip, Flips
from emca_deploy.results.deploy import Picture

__all__ = ["FlipCard", "flip_cards", "flip_styles", "flips_words", "reliability_plot"]

WIDTH, HEIGHT = 460, 230
MOST_CARDS = 6


@dataclass(frozen=True)
class FlipCard:
    """An image whose class differs: its file name, whether the page has its picture, its number, and the classes in words."""

    file: str
    pictured: bool
    index: int
    lines: tuple[str, ...]


def reliability_plot(name: str, report: AccuracyReport) -> str:
    """Return an SVG element with the accuracy of images by their confidence, and that of the reference; "" without bins."""
    if not report.reliability:
        return ""
    against = report.reference.reliability if report.reference is not None else ()
    bottom = HEIGHT - FOOT_PX
    axes = Axis(0.0, 100.0, LEFT, WIDTH - 10), Axis(0.0, 100.0, bottom, 26)
    shapes = [*draw_y(axes[1], LEFT, WIDTH - 10, 36), *draw_x(axes[0], 26, bottom, "confidence, %", WIDTH, 80)]
    shapes.append(svg.line((axes[0].px(0), axes[1].px(0)), (axes[0].px(100), axes[1].px(100)), dash="5 4", opacity=0.6))
    series = [("reference", against, 1, report.reference.ece)] if against and report.reference is not None else []
    told, place = [], 0.0
    for words, bins, index, ece in [*series, ("this model", report.reliability, 0, report.ece)]:
        points = [(axes[0].px(each.confidence), axes[1].px(each.accuracy)) for each in bins]
        shapes.append(svg.polyline(points, svg.COLOURS[index]))
        shapes.append(svg.squares(points, _radii(bins), svg.COLOURS[index]))
        label = f"{words}: ECE {fixed(ece)} %"
        shapes += [svg.squares([(place + 6, 10)], [5], svg.COLOURS[index]), svg.text(place + 17, 15, label)]
        place += 34 + svg.text_width_px(label)
        told.append(f"{label}, {sum(each.images for each in bins):,} images in {len(bins)} bins")
    return svg.document(name, (WIDTH, HEIGHT), "Accuracy by confidence, %", "; ".join(told), shapes)


def _radii(bins: Sequence[ConfidenceBin]) -> list[float]:
    """Return the radius of each mark: its area grows with the share of the images, with a least size."""
    total = sum(each.images for each in bins)
    return [round(2.5 + 5 * (each.images / total) ** 0.5, 1) for each in bins]


def flips_words(flips: Flips) -> str:
    """Return how many images differ, and in which way."""
    if flips.lost is None or flips.won is None:
        return _images(flips.total)
    rest = flips.total - flips.lost - flips.won
    return f"{_images(flips.total)}: {flips.lost:,} lost, {flips.won:,} gained, {rest:,} wrong in both"


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def flip_cards(flips: Flips, pictures: Mapping[int, Picture], names: Mapping[int, str]) -> list[FlipCard]:
    """Return a card for each of the first flips: those where only the reference is right come first."""
    return [_card(each, each.index in pictures, names) for each in flips.worst(MOST_CARDS)]


def _card(flip: Flip, pictured: bool, names: Mapping[int, str]) -> FlipCard:
    def called(label: int) -> str:
        return plain(names.get(label, f"class {label}"))

    lines = [f"{called(flip.reference)} became {called(flip.candidate)}"]
    if flip.label is not None:
        kind = "lost" if flip.label == flip.reference else "gained" if flip.label == flip.candidate else "wrong in both"
        lines.append(f"{kind}: it is {called(flip.label)}")
    return FlipCard(plain(flip.file) or f"image {flip.index}", pictured, flip.index, tuple(lines))


_BASE64 = re.compile(r"[A-Za-z0-9+/=]+")


def flip_styles(pictures: Mapping[int, Picture], cards: Sequence[FlipCard]) -> str:
    """Return style rules with the picture of each card, each once: several candidates show the same image."""
    shown = sorted({card.index for card in cards if card.pictured})
    rules = [(index, pictures[index].jpeg) for index in shown if _BASE64.fullmatch(pictures[index].jpeg)]
    return "\n".join(
        f".picture.flip-{index} {{ background-image: url(data:image/jpeg;base64,{jpeg}); }}" for index, jpeg in rules
    )
