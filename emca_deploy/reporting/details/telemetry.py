"""Power and temperature of one candidate or cell over time, as SVG and as numbers to zoom into."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from emca_deploy.reporting import svg
from emca_deploy.reporting.axis import FOOT_PX, Axis, draw_x, draw_y, fit_axis
from emca_deploy.reporting.details.latency import HEIGHT, LEFT, WIDTH, Zoom, zoom_of
from emca_deploy.reporting.formats import plain, significant
from emca_deploy.results.telemetry import Readings, TelemetryResult

__all__ = ["readings_over_time", "readings_plot", "readings_zoom"]

_POINTS = 60
_POWER = "total_power_w"


def readings_over_time(telemetry: TelemetryResult) -> Iterator[tuple[str, Readings]]:
    """Yield the total power of the first source that has one, and the temperature that was highest, with their names."""
    found = [(source, name, each) for source, told in telemetry.sources.items() for name, each in told.over_time.items()]
    powers = [(f"{source}: power, W", each) for source, name, each in found if name == _POWER]
    temperatures = [(f"{source}: {name}", each) for source, name, each in found if name != _POWER]
    yield from powers[:1]
    yield from sorted(temperatures, key=lambda pair: -max(pair[1].values))[:1]


def readings_plot(name: str, title: str, readings: Readings) -> str:
    """Return an SVG element with readings over time; of many only some, evenly."""
    step = max(ceil(len(readings.values) / _POINTS), 1)
    times, values = readings.times_s[::step], readings.values[::step]
    bottom = HEIGHT - FOOT_PX
    x_axis = Axis(0.0, max(*readings.times_s, 1e-3), LEFT, WIDTH - 6)
    y_axis = fit_axis(values, bottom, 10, may_be_log=False)
    points = [(x_axis.px(time), y_axis.px(value)) for time, value in zip(times, values, strict=True)]
    shapes = [*draw_y(y_axis, LEFT, WIDTH - 6, 30), *draw_x(x_axis, 10, bottom, "seconds", WIDTH, 80)]
    shapes.append(svg.polyline(points, svg.COLOURS[3]))
    told = f"{plain(title)}: from {significant(min(readings.values))} to {significant(max(readings.values))}"
    return svg.document(name, (WIDTH, HEIGHT), f"{plain(title)}, over time", told, shapes)


def readings_zoom(readings: Readings, most: int) -> Zoom | None:
    """Return the numbers of a plot of readings; None where they are too many for the page or too few to zoom into."""
    count = len(readings.values)
    zoom = None if count <= _POINTS or 2 * count > most // 4 else zoom_of(readings.values, count, label="seconds")
    return None if zoom is None else replace(zoom, places=" ".join(f"{time:g}" for time in readings.times_s))
