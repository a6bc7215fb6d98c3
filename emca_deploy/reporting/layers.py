"""Layers on the terminal and as a plot: the time of each, and how close it is to the machine's peak."""

from typing import TYPE_CHECKING

from emca_deploy.reporting import svg
from emca_deploy.reporting.axis import FOOT_PX, Axis, draw_x, draw_y, fit_axis
from emca_deploy.reporting.formats import NONE, fixed, plain, shortened, significant
from emca_deploy.reporting.output import say, show_table
from emca_deploy.results.layers import KINDS, ArtifactLayers, Layer, LayersReport

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["HEADINGS", "layer_lines", "layer_rows", "layers_plot", "print_layers"]

HEADINGS = ("layer", "type", "kind", "precision", "ms", "share %", "GOP/s", "of roof %")
_LONGEST_NAME = 60
_MOST_NAMES = 3

WIDTH = 720
_TOP, _BAR, _ROW = 34, 22, 58
_ROOF_HEIGHT = 250
_LEFT, _RIGHT, _MARGIN = 62, 16, 12
_COLOUR_OF = dict(zip(KINDS, svg.COLOURS, strict=True))


def print_layers(report: LayersReport, console: "Console", most: int) -> None:
    """Print each artifact's slowest layers in execution order, and the share of each kind."""
    for index, result in enumerate(report.results):
        if index:
            console.print()
        _print_result(result, console, most)


def _print_result(result: ArtifactLayers, console: "Console", most: int) -> None:
    threads = f", {result.threads} thread{'s' if result.threads > 1 else ''}" if result.threads else ""
    say(console, f"{plain(result.artifact)}: {result.backend} {result.precision}, batch {result.batch}{threads}", "bold")
    rows, rest, share = layer_rows(result, most)
    show_table(console, HEADINGS, rows, left=4, gap=None)
    if rest:
        say(console, f"and {rest} shorter layers, {fixed(share, 1)} % (--top, --json)", "dim")
    for line in layer_lines(result):
        say(console, line)


def layer_rows(result: ArtifactLayers, most: int) -> tuple[list[tuple[tuple[str, ...], bool]], int, float]:
    """Return the slowest layers in execution order, each with whether it is slow, and the number and share of the others."""
    shown = set(sorted(range(len(result.layers)), key=lambda place: -result.layers[place].median_ms)[:most])
    rows = [(_cells(result.layers[place]), result.layers[place].slow) for place in sorted(shown)]
    rest = [layer for place, layer in enumerate(result.layers) if place not in shown]
    return rows, len(rest), sum(layer.share_percent for layer in rest)


def layer_lines(result: ArtifactLayers) -> list[str]:
    """Return the share of each kind of layer, how the times add up, and what hinders INT8."""
    return [*_summary(result), *_int8(result)]


def _cells(layer: Layer) -> tuple[str, ...]:
    near = layer.utilisation_percent
    mark = " *" if layer.slow else ""
    return (
        shortened(layer.name, _LONGEST_NAME),
        plain(layer.type),
        layer.kind,
        layer.precision,
        f"{layer.median_ms:.3f}",
        fixed(layer.share_percent, 1),
        fixed(layer.gops, 1),
        NONE if near is None else f"{fixed(near, 0)} {layer.bound}{mark}",
    )


def _summary(result: ArtifactLayers) -> list[str]:
    parts = [f"{kind} {fixed(result.share_percent[kind], 1)} %" for kind in KINDS if result.share_percent[kind] > 0]
    lines = [f"by kind: {', '.join(parts)}", _against_the_whole(result)]
    roofline = result.roofline
    if roofline is not None:
        peaks = ", ".join(f"{name} {fixed(value, 0)} GOP/s" for name, value in roofline.gops.items())
        bandwidth = f"; copy {fixed(roofline.bandwidth_gb_s, 1)} GB/s" if roofline.bandwidth_gb_s else ""
        lines.append(f"roof (one large convolution on this machine): {peaks}{bandwidth}; *: below half of the roof")
    return [*lines, *(f"note: {note}" for note in result.notes)]


def _int8(result: ArtifactLayers) -> list[str]:
    """Return the share in INT8 of a quantized model and, for each finding, its first nodes and the remedy."""
    found = result.int8
    if found is None:
        return []
    share = fixed(found.int8_macs_percent, 1)
    lines = [f"INT8: {found.int8_layers} of {found.layers} layers, {share} % of the multiply-adds, judging by the graph"]
    for finding in found.findings:
        names = ", ".join(plain(name) for name in finding.nodes[:_MOST_NAMES])
        more = f" and {len(finding.nodes) - _MOST_NAMES} more" if len(finding.nodes) > _MOST_NAMES else ""
        lines += [f"{names}{more}: {finding.problem}", f"  try: {finding.remedy}"]
    return lines


def _against_the_whole(result: ArtifactLayers) -> str:
    text = f"sum of the layers' medians {significant(result.sum_ms)} ms, {result.calls} calls"
    if result.end_to_end_ms is None or result.profiled_ms is None or result.layers_ms is None:
        return text
    share = 100 * result.sum_ms / result.end_to_end_ms
    inside = 100 * result.layers_ms / result.profiled_ms
    overhead = 100 * (result.profiled_ms / result.end_to_end_ms - 1)
    return (
        f"{text}: {fixed(share, 0)} % of a call without profiling, {significant(result.end_to_end_ms)} ms; "
        f"a profiled call takes {significant(result.profiled_ms)} ms ({overhead:+.0f} %), {fixed(inside, 0)} % of it in layers"
    )


def layers_plot(report: LayersReport) -> str:
    """Return an SVG element with a stacked bar for each artifact, by kind, and below it each artifact's roofline."""
    bars_bottom = _TOP + 20 + _ROW * len(report.results)
    ends = [max(result.sum_ms, result.end_to_end_ms or 0.0) for result in report.results]
    axis = Axis(0.0, max(ends) * 1.02 or 1.0, 0.0, WIDTH - _RIGHT)
    shapes = _legend()
    shapes += draw_x(axis, _TOP + 10, bars_bottom, "milliseconds of a call: layers, then time outside them", WIDTH, 70)
    for index, result in enumerate(report.results):
        shapes += _stack(result, axis, _TOP + 20 + _ROW * index)
    top: float = bars_bottom + FOOT_PX + 12
    for result in report.results:
        if result.roofline is not None and any(layer.utilisation_percent for layer in result.layers):
            shapes += _roofline(result, top)
            top += _ROOF_HEIGHT
    told = "; ".join(
        f"{plain(result.artifact)} on {result.backend}: {significant(result.sum_ms)} ms; "
        + ", ".join(f"{kind} {fixed(result.share_percent[kind], 1)} %" for kind in KINDS)
        for result in report.results
    )
    drawn = svg.document(
        "layers", (WIDTH, round(top + 4)), "Time of each kind of layer, and the roofline", told, shapes, margin=_MARGIN
    )
    # No page around the file gives it a font and a background.
    return drawn.replace("<svg ", '<svg font-family="system-ui, sans-serif" style="background:#fff;color:#222" ', 1)


def _legend() -> list[str]:
    shapes, x = [], 0.0
    for kind in KINDS:
        shapes.append(svg.box(x, x + 12, 6, 11, _COLOUR_OF[kind]))
        shapes.append(svg.marker(KINDS.index(kind), x + 22, 11.5, 4))
        shapes.append(svg.text(x + 31, 16, kind))
        x += 31 + svg.text_width_px(kind) + 8
    return shapes


def _stack(result: ArtifactLayers, axis: Axis, top: float) -> list[str]:
    total = f"{significant(result.end_to_end_ms or result.sum_ms)} ms"
    title = f"{result.backend} {result.precision}: {result.artifact.rpartition('/')[2]}"
    room = svg.fitting(WIDTH - 30 - svg.text_width_px(total))
    shapes = [
        svg.text(0, top + 14, shortened(title, room), bold=True),
        svg.text(WIDTH - _RIGHT, top + 14, total, anchor="end", muted=True),
    ]
    left = 0.0
    for kind in KINDS:
        share = result.share_percent[kind]
        if share <= 0:
            continue
        right = left + result.sum_ms * share / 100
        start, end = axis.px(left), axis.px(right)
        shapes.append(svg.box(start, end, top + 20, _BAR, _COLOUR_OF[kind]))
        words = f"{fixed(share, 0)} %"
        if end - start > svg.text_width_px(words) + 4:
            shapes.append(svg.text((start + end) / 2, top + 20 + _BAR / 2 + 4.5, words, anchor="middle"))
        left = right
    whole = result.end_to_end_ms
    if whole is not None and whole > left:
        x, y = axis.px(whole), top + 20 + _BAR / 2
        shapes.append(svg.line((axis.px(left), y), (x, y), dash="3 3", opacity=0.6))
        shapes.append(svg.line((x, y - 6), (x, y + 6), opacity=0.6))
    return shapes


def _roofline(result: ArtifactLayers, top: float) -> list[str]:
    """Draw operations per second against operations per byte, both logarithmic; a mark's size is the layer's share."""
    roofline = result.roofline
    assert roofline is not None
    layers = [layer for layer in result.layers if layer.gops and layer.intensity]
    floor, ceiling = top + _ROOF_HEIGHT - FOOT_PX, top + 34
    x_axis = fit_axis([layer.intensity or 1 for layer in layers] + [10.0, 1000.0], _LEFT, WIDTH - _RIGHT, margin=0.03)
    y_axis = fit_axis([layer.gops or 1 for layer in layers] + list(roofline.gops.values()), floor, ceiling, margin=0.06)
    title = f"{result.backend} {result.precision}: {result.artifact.rpartition('/')[2]}"
    shapes = [
        svg.text(0, top + 10, shortened(title, 70), bold=True),
        svg.text(0, top + 27, "billion operations/s; roofs measured on this machine", muted=True),
    ]
    shapes += draw_x(x_axis, ceiling, floor, "operations per byte of input, weights and output (log scale)", WIDTH, 70)
    shapes += draw_y(y_axis, _LEFT, WIDTH - _RIGHT, 34)
    shapes += _roofs(result, x_axis, y_axis)
    for layer in sorted(layers, key=lambda one: -one.share_percent):
        x, y = x_axis.px(layer.intensity or 1), y_axis.px(layer.gops or 1)
        shapes.append(svg.marker(KINDS.index(layer.kind), x, y, 3 + min(layer.share_percent, 25) ** 0.5))
    return shapes


def _roofs(result: ArtifactLayers, x_axis: Axis, y_axis: Axis) -> list[str]:
    roofline = result.roofline
    assert roofline is not None
    present = {layer.precision for layer in result.layers if layer.gops}
    shapes = []
    for name, peak in roofline.gops.items():
        if name not in present:
            continue
        bend = peak / roofline.bandwidth_gb_s if roofline.bandwidth_gb_s else x_axis.low
        y = y_axis.px(peak)
        shapes.append(svg.line((x_axis.px(bend), y), (x_axis.end_px, y), width=1.5, opacity=0.8))
        shapes.append(svg.text(x_axis.end_px, y - 5, f"{name}: {fixed(peak, 0)}", anchor="end", muted=True))
    peaks = [peak for name, peak in roofline.gops.items() if name in present]
    shapes += _slope(max(peaks, default=0.0), roofline.bandwidth_gb_s, x_axis, y_axis)
    return shapes


def _slope(peak: float, bandwidth_gb_s: float | None, x_axis: Axis, y_axis: Axis) -> list[str]:
    """Draw the roof that memory sets, up to the edge of the plot or the highest peak."""
    if not bandwidth_gb_s:
        return []
    start = max(x_axis.low, y_axis.low / bandwidth_gb_s)
    end = min(x_axis.high, peak / bandwidth_gb_s)
    if start >= end:
        return []
    ends = [(x_axis.px(value), y_axis.px(value * bandwidth_gb_s)) for value in (start, end)]
    label = svg.text(ends[0][0] + 4, ends[0][1] + 16, f"memory: {fixed(bandwidth_gb_s, 1)} GB/s", muted=True)
    return [svg.line(ends[0], ends[1], width=1.5, opacity=0.8), label]
