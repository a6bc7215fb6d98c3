"""The report's two plots as SVG: the distribution of latencies, and accuracy against latency."""

from collections.abc import Sequence
from math import ceil

from emca_deploy.reporting import svg
from emca_deploy.reporting.axis import FOOT_PX, Axis, draw_x, draw_y, fit_axis
from emca_deploy.reporting.formats import fixed, shortened, significant
from emca_deploy.reporting.labels import Box, place_labels
from emca_deploy.results.deploy import DeployCandidate, DeployReport
from emca_deploy.results.figures import figures_of
from emca_deploy.results.recommendation import DEPLOY_GATE

__all__ = ["error_bars", "latency_plot", "outline", "tradeoff_plot"]

WIDTH = 560
_TOP, _ROW, _SHAPE = 8, 66, 34
_BINS = 90
_MOST_TAIL_MARKS = 60
_HEIGHT = 360
_LEFT, _RIGHT = 58, 14
_MEASURES = {"top-1": "top-1 accuracy"}


def latency_plot(report: DeployReport) -> str:
    """Return an SVG element with the distribution of each candidate's calls, in rows on a shared axis."""
    rows = report.candidates
    values = [value for c in rows for value in (c.latency.latency_ms.min, c.latency.latency_ms.max, *c.latency.samples_ms)]
    axis = fit_axis(values, 6, WIDTH - 6, margin=0.03)
    bottom = _TOP + _ROW * len(rows)
    shapes = draw_x(axis, _TOP, bottom, f"latency of one call, ms{' (log scale)' if axis.log else ''}", WIDTH)
    for index, candidate in enumerate(rows):
        shapes += _latency_row(candidate, index, axis, _TOP + _ROW * index)
    summaries = ((c.name, c.latency.latency_ms) for c in rows)
    told = "; ".join(f"{name}: p50 {significant(s.p50)} ms, p99 {significant(s.p99)} ms" for name, s in summaries)
    return svg.document("latency", (WIDTH, bottom + FOOT_PX), "Latency distribution of each candidate", told, shapes)


def _latency_row(candidate: DeployCandidate, index: int, axis: Axis, top: float) -> list[str]:
    summary = candidate.latency.latency_ms
    colour = svg.COLOURS[index % len(svg.COLOURS)]
    floor = top + 22 + _SHAPE
    medians = f"p50 {significant(summary.p50)}, p99 {significant(summary.p99)} ms"
    room = WIDTH - 34 - svg.text_width_px(medians)
    shapes = [
        svg.marker(index, 13, top + 10, 5),
        svg.text(26, top + 15, shortened(candidate.name, svg.fitting(room)), bold=True),
        svg.text(WIDTH - 6, top + 15, medians, anchor="end", muted=True),
        svg.line((axis.px(summary.min), floor), (axis.px(summary.max), floor), colour=colour, width=1.5),
    ]
    samples = sorted(candidate.latency.samples_ms)
    if samples:
        shapes.append(svg.path(outline(samples, axis, floor, _SHAPE * 0.95), colour))
        tail = samples[ceil(len(samples) * 0.99) :][-_MOST_TAIL_MARKS:]
        shapes += [svg.line((axis.px(v), floor), (axis.px(v), floor - 7), colour=colour, opacity=0.8) for v in tail]
    p50, p99 = axis.px(summary.p50), axis.px(summary.p99)
    shapes.append(svg.line((p50, floor + 2), (p50, floor - _SHAPE), width=2))
    shapes.append(svg.line((p99, floor + 2), (p99, floor - _SHAPE * 0.6), width=1.5, dash="3 3"))
    return shapes


def outline(samples: Sequence[float], axis: Axis, floor: float, height: float) -> list[svg.Point]:
    """Return the outline of a histogram of ascending samples, with bins of equal width in pixels, as high as `height`."""
    left, right = axis.px(samples[0]), axis.px(samples[-1])
    width = (axis.end_px - axis.start_px) / _BINS
    bins = max(ceil((right - left) / width), 1)
    counts = [0] * bins
    for value in samples:
        counts[min(int((axis.px(value) - left) / width), bins - 1)] += 1
    most = max(counts)
    points = [(left, floor)]
    for index, count in enumerate(counts):
        top = floor - height * count / most
        points += [(left + index * width, top), (left + (index + 1) * width, top)]
    return [*points, (left + bins * width, floor)]


def tradeoff_plot(report: DeployReport) -> str:
    """Return an SVG element with accuracy against median latency, and 95% intervals as bars.

    Without labels, agreement with the baseline replaces the accuracy. A candidate's vertical interval is that of its paired
    difference from the baseline.
    """
    rows = report.candidates
    labelled = all(figures_of(c.accuracy)[0].value is not None for c in rows)
    heights = [_height(c, labelled) for c in rows]
    measure = figures_of(rows[0].accuracy)[0].name
    what = f"{_MEASURES.get(measure, measure)}, %" if labelled else "agreement with the baseline, %"
    top, bottom = 30, _HEIGHT - FOOT_PX
    x_axis = fit_axis(
        [v for c in rows for v in (c.latency.latency_ms.p50, *c.latency.latency_ms.p50_ci95)], _LEFT, WIDTH - _RIGHT, margin=0.09
    )
    guides = _guides(report) if labelled else []
    values = [value for height in heights for value in height] + [value for value, _ in guides]
    y_axis = fit_axis(values, bottom, top, may_be_log=False, margin=0.1)
    shapes = [svg.text(0, 14, what, muted=True), *draw_y(y_axis, _LEFT, WIDTH - _RIGHT)]
    shapes += draw_x(x_axis, top, bottom, f"median latency of one call, ms{' (log scale)' if x_axis.log else ''}", WIDTH)
    shapes += [
        svg.line((_LEFT, y_axis.px(value)), (WIDTH - _RIGHT, y_axis.px(value)), dash="6 4", opacity=0.55) for value, _ in guides
    ]
    shapes += _points(rows, heights, (x_axis, y_axis), guides)
    told = "; ".join(
        f"{c.name}: {fixed(middle)}% ({fixed(low)} to {fixed(high)}) at {significant(c.latency.latency_ms.p50)} ms"
        for c, (low, middle, high) in zip(rows, heights, strict=True)
    )
    return svg.document("tradeoff", (WIDTH, _HEIGHT), f"{what.capitalize()} against median latency", told, shapes)


def _height(candidate: DeployCandidate, labelled: bool) -> tuple[float, float, float]:
    """Return (low, value, high) of a candidate on the vertical axis, percent."""
    reference, figure = candidate.accuracy.reference, figures_of(candidate.accuracy)[0]
    value = figure.value
    if not labelled or value is None:
        agreement = 100.0 if reference is None or reference.agreement is None else reference.agreement
        return agreement, agreement, agreement
    if reference is None or figure.reference is None or figure.drop_ci95 is None:
        return value, value, value
    if candidate.accuracy.artifact == reference.artifact:
        return value, value, value  # it does not differ from itself
    least, most = figure.drop_ci95
    return figure.reference - most, value, figure.reference - least


def _guides(report: DeployReport) -> list[tuple[float, str]]:
    for candidate in report.candidates:
        value = figures_of(candidate.accuracy)[0].value
        if candidate.name == report.baseline and value is not None:
            allowed = DEPLOY_GATE.max_drop
            return [(value, "baseline"), (value - allowed, f"{allowed:g} points below")]
    return []


def _points(
    rows: Sequence[DeployCandidate],
    heights: list[tuple[float, float, float]],
    axes: tuple[Axis, Axis],
    guides: list[tuple[float, str]],
) -> list[str]:
    x_axis, y_axis = axes
    bars, marks, centres = [], [], []
    lines = [Box(_LEFT, y_axis.px(value) - 1, WIDTH - _RIGHT, y_axis.px(value) + 1) for value, _ in guides]
    taken: list[Box] = []
    for index, (candidate, (low, middle, high)) in enumerate(zip(rows, heights, strict=True)):
        x, y = x_axis.px(candidate.latency.latency_ms.p50), y_axis.px(middle)
        left, right = (x_axis.px(limit) for limit in candidate.latency.latency_ms.p50_ci95)
        bars += error_bars((x, y), (left, right), (y_axis.px(low), y_axis.px(high)), svg.COLOURS[index % len(svg.COLOURS)])
        marks.append(svg.marker(index, x, y))
        centres.append((x, y))
        taken += [
            Box(x - 8, y - 8, x + 8, y + 8),
            Box(left, y - 2, right, y + 2),
            Box(x - 5, y_axis.px(high), x + 5, y_axis.px(low)),
        ]
    names = [shortened(c.name, svg.fitting(220)) for c in rows]
    labels = place_labels(names, centres, taken, Box(_LEFT + 2, 18, WIDTH - 2, y_axis.start_px - 2), lines)
    leaders = [svg.line(centre, label.near, opacity=0.4) for centre, label in zip(centres, labels, strict=True) if label.far]
    texts = [svg.text(label.x, label.y, name) for name, label in zip(names, labels, strict=True)]
    blocked = [*taken, *(label.box for label in labels)]
    return leaders + bars + marks + texts + [_guide_label(y_axis.px(value), words, blocked) for value, words in guides]


def error_bars(centre: svg.Point, across: svg.Point, upright: svg.Point, colour: str) -> list[str]:
    """Return the bars of a mark: horizontal from `across[0]` to `across[1]`, and vertical between `upright` with ends."""
    x, y = centre
    bars = [svg.line((across[0], y), (across[1], y), colour=colour, width=2)]
    if upright[0] != upright[1]:
        bars.append(svg.line((x, upright[0]), (x, upright[1]), colour=colour, width=2))
        bars += [svg.line((x - 5, end), (x + 5, end), colour=colour, width=2) for end in upright]
    return bars


def _guide_label(y: float, words: str, blocked: Sequence[Box]) -> str:
    """Return the label of a dashed line, just above or below it where space is free, preferably at the right end."""
    width = svg.text_width_px(words)
    ends = range(WIDTH - _RIGHT - 2, int(_LEFT + width), -12)
    places = [(end, base) for base in (y - 5, y + 15) for end in ends]

    def covered(place: tuple[float, float]) -> float:
        own = Box(place[0] - width, place[1] - 11, place[0], place[1] + 3)
        return sum(own.overlap(box) for box in blocked)

    end, base = min(places, key=covered)
    return svg.text(end, base, words, anchor="end", muted=True)
