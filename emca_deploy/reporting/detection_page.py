"""What the page of a deployment has of detectors only: average precision, and pictures of lost and gained detections."""

from dataclasses import dataclass

from emca_deploy.reporting import svg
from emca_deploy.reporting.formats import NONE, fixed, interval
from emca_deploy.reporting.table import Column
from emca_deploy.results.deploy import DeployReport, Picture
from emca_deploy.results.detection import AveragePrecision, DetectionFlip, DetectionFlips, DetectionReport
from emca_deploy.results.figures import Figure, figures_of

__all__ = ["FlipCard", "FlipPictures", "flip_pictures", "precision_columns"]

PICTURES = 4
"""Most pictures of one candidate."""

SIDE_PX = 320
"""Longer side of a picture on the page."""

STYLES = {"lost": ("#E69F00", "7 4"), "gained": ("#56B4E9", "")}
"""Colour and dashes of a box; only lost detections are dashed."""


@dataclass(frozen=True)
class FlipCard:
    """One picture, with a line for each of its boxes: (number, lost or gained, description)."""

    file: str
    picture: str
    lines: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True)
class FlipPictures:
    """The lost and gained detections of one candidate: its name, lowest score that counts, counts, and pictures of some."""

    name: str
    least_score: str
    counts: str
    cards: tuple[FlipCard, ...]


def precision_columns(report: DeployReport) -> list[Column]:
    """Return the columns of the table of average precision, with a row for boxes and masks of each candidate; none without."""
    rows: list[tuple[str, Figure, AveragePrecision]] = []
    for candidate in report.candidates:
        if not isinstance(candidate.accuracy, DetectionReport):
            continue
        both = {"box AP": candidate.accuracy.box, "mask AP": candidate.accuracy.mask}
        for figure in figures_of(candidate.accuracy):
            if (found := both[figure.name]) is not None:
                own = Figure(figure.name, figure.value) if candidate.name == report.baseline else figure
                rows.append((f"{candidate.name}, {figure.name.split()[0]}", own, found))
    if not rows:
        return []
    drops, intervals = [figure.drop for _, figure, _ in rows], [figure.drop_ci95 for _, figure, _ in rows]
    columns = [
        Column("candidate", tuple(name for name, _, _ in rows)),
        Column("AP", tuple(fixed(found.ap) for *_, found in rows)),
        Column("drop, points", tuple(map(fixed, drops)), tuple("" if ci is None else interval(ci) for ci in intervals)),
        Column("AP50", tuple(fixed(found.ap50) for *_, found in rows)),
        Column("AP75", tuple(fixed(found.ap75) for *_, found in rows)),
        Column("small", tuple(fixed(found.ap_small) for *_, found in rows)),
        Column("medium", tuple(fixed(found.ap_medium) for *_, found in rows)),
        Column("large", tuple(fixed(found.ap_large) for *_, found in rows)),
    ]
    return [column for column in columns if any(cell != NONE for cell in column.cells)]


def flip_pictures(report: DeployReport) -> list[FlipPictures]:
    """Return the pictures of each candidate with lost or gained detections."""
    known = {picture.index: picture for picture in report.pictures}
    found = []
    for number, candidate in enumerate(report.candidates):
        accuracy = candidate.accuracy
        if not isinstance(accuracy, DetectionReport) or accuracy.reference is None or not accuracy.reference.flips.images:
            continue
        flips, names = accuracy.reference.flips, {entry.label: entry.name for entry in accuracy.per_class or ()}
        chosen = flips.by_image(len(flips.detections))
        shown = [(known[index], some) for index, some in chosen.items() if index in known][:PICTURES]
        cards = tuple(_card(f"flips-{number}-{place}", picture, some, names) for place, (picture, some) in enumerate(shown))
        found.append(FlipPictures(candidate.name, f"{accuracy.reference.least_score:g}", _counts(flips), cards))
    return found


def _counts(flips: DetectionFlips) -> str:
    def counted(count: int, right: int | None) -> str:
        return f"{count:,}" if right is None else f"{count:,} ({right:,} right)"

    lost, gained = counted(flips.lost, flips.lost_right), counted(flips.gained, flips.gained_right)
    return f"lost {lost}, gained {gained}, in {flips.images:,} images"


def _card(name: str, picture: Picture, flips: tuple[DetectionFlip, ...], names: dict[int, str]) -> FlipCard:
    scale = SIDE_PX / max(picture.width, picture.height, 1)
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    shapes, tags, lines = [svg.photograph(size, picture.jpeg)], [], []
    for number, flip in enumerate(flips, 1):
        colour, dash = STYLES[flip.kind]
        x1, y1, x2, y2 = (value * scale for value in flip.box)
        shapes.append(svg.outline((x1, y1, x2, y2), colour, dash))
        tags.append(svg.tag(min(max(x1, 1), size[0] - 16), min(max(y1, 1), size[1] - 18), f"{number}", colour))
        lines.append((number, flip.kind, _described(flip, names)))
    title = "; ".join(f"{kind} {text}" for _, kind, text in lines)
    return FlipCard(picture.file, svg.document(name, size, picture.file, title, shapes + tags), tuple(lines))


def _described(flip: DetectionFlip, names: dict[int, str]) -> str:
    right = "" if flip.right is None else ", right" if flip.right else ", wrong"
    return f"{names.get(flip.label, f'class {flip.label}')} {fixed(flip.score)}{right}"
