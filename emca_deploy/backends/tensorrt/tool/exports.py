"""The JSON files that trtexec exports from version 8.0 on: times, profile and layers."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emca_deploy.errors import InputError

__all__ = ["ExportedLayer", "LayerProfile", "LayerTime", "QueryTimes", "read_layer_info", "read_profile", "read_times"]

REMEDY = "run trtexec again: it writes the file at its end"
NOT_JSON = re.compile(r"(?<=[:,\[\s])([-+]?)(?:inf|nan)(?:inity)?(?=\s*[,}\]\n])")
NAME_START, NAME_END = '"name" : "', '", "timeMs" : '
FIGURES = re.compile(
    r'", "timeMs" : (?P<timeMs>[^,]+), "averageMs" : (?P<averageMs>[^,]+)'
    r'(?:, "medianMs" : (?P<medianMs>[^,]+))?, "percentage" : (?P<percentage>[^,}]+)\}'
)
COUNT_LINE = re.compile(r'\{ ?"count" : (?P<count>\d{1,18}) ?\}')


@dataclass(frozen=True)
class QueryTimes:
    """The times of all queries in ms, in the order of the queries; all of the same length.

    Attributes:
        latency_ms: Copy to the device + GPU compute + copy back, by the device's clock.
        compute_ms: GPU compute.
    """

    latency_ms: tuple[float, ...]
    compute_ms: tuple[float, ...]
    to_device_ms: tuple[float, ...]
    to_host_ms: tuple[float, ...]

    def without_first(self, count: int) -> "QueryTimes":
        """Return the times without those of the first queries, such as the warm-up."""
        lists = (self.latency_ms, self.compute_ms, self.to_device_ms, self.to_host_ms)
        return QueryTimes(*(values[count:] for values in lists))


@dataclass(frozen=True)
class LayerTime:
    """A layer's time in the profile run.

    Attributes:
        name: Name in the engine, usually made of the nodes fused into it.
        average_ms: Mean time of a query.
        median_ms: Median time of a query; None before 8.4, which does not write it.
        percent: Share of the time of all layers.
    """

    name: str
    average_ms: float
    median_ms: float | None
    percent: float


@dataclass(frozen=True)
class LayerProfile:
    """An exported profile: the number of queries, and the layers in the order of execution."""

    queries: int
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True)
class ExportedLayer:
    """A layer of an engine; only an engine built with detailed verbosity has more than the name.

    Attributes:
        kind: TensorRT's word for it.
        inputs: Its inputs as "name: format and type".
        outputs: Its outputs as "name: format and type".
        nodes: Metadata, which names the ONNX nodes it came from.
    """

    name: str
    kind: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    nodes: str = ""


def read_times(text: str, source: str) -> QueryTimes:
    """Read the text that --exportTimes wrote; `source` is the file's name, for errors.

    Raises:
        InputError: the text is cut off, has another form, no query, or a time that is not a finite number from 0.
    """
    rows = _load(text, source)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{source}: not the times of a trtexec run", REMEDY)
    names = ("latencyMs", "computeMs", "h2dMs", "d2hMs")
    return QueryTimes(*(tuple(_time(row, name, source) for row in rows) for name in names))


def read_profile(text: str, source: str) -> LayerProfile:
    """Read what --exportProfile wrote, even with unescaped quotes in names; raise InputError for anything else."""
    try:
        rows = _load(text, source)
    except InputError:
        rows = _rows_by_line(text)
        if rows is None:
            raise
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows) or "count" not in rows[0]:
        raise InputError(f"{source}: not the profile of a trtexec run", REMEDY)
    count = rows[0]["count"]
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise InputError(f"{source}: its number of queries is not valid", REMEDY)
    return LayerProfile(count, tuple(_layer_time(row, source) for row in rows[1:]))


def read_layer_info(text: str, source: str) -> tuple[ExportedLayer, ...]:
    """Read what --exportLayerInfo wrote: names, or objects of a detailed build; raise InputError for anything else."""
    document = _load(text, source)
    layers = document.get("Layers") if isinstance(document, dict) else None
    if not isinstance(layers, list):
        raise InputError(f"{source}: not the layers of an engine", REMEDY)
    return tuple(_exported_layer(layer, source) for layer in layers)


def _load(text: str, source: str) -> Any:
    for candidate in (text, NOT_JSON.sub(lambda match: "-Infinity" if match[1] == "-" else "Infinity", text)):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError) as exc:  # ValueError also of integers with thousands of digits
            problem = exc
    what = "empty" if not text.strip() else "cut off, or not JSON"
    raise InputError(f"{source}: is {what}", REMEDY) from problem


def _rows_by_line(text: str) -> list[dict[str, Any]] | None:
    """Return the rows of a profile that is not JSON because of quotes in names, one layer a line; None where it is cut off."""
    head = COUNT_LINE.search(text)
    if head is None or not text.rstrip().endswith("]"):
        return None
    rows: list[dict[str, Any]] = [{"count": int(head["count"])}]
    for line in text.splitlines():
        start, end = line.find(NAME_START), line.rfind(NAME_END)
        figures = FIGURES.match(line, end) if 0 <= start < end else None
        if figures is None:
            continue
        try:
            numbers = {key: float(value) for key, value in figures.groupdict().items() if value}
        except ValueError:
            return None
        rows.append({"name": line[start + len(NAME_START) : end], **numbers})
    return rows if len(rows) > 1 else None


def _time(row: Mapping[str, Any], name: str, source: str) -> float:
    value = row.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{source}: a query lacks its {name}", REMEDY)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise InputError(f"{source}: {name} is {number} ms", "run trtexec again; if that does not help, update the driver")
    return number


def _layer_time(row: Mapping[str, Any], source: str) -> LayerTime:
    name = row.get("name")
    if not isinstance(name, str):
        raise InputError(f"{source}: a layer has no name", REMEDY)
    median = _time(row, "medianMs", source) if "medianMs" in row else None
    percent = row.get("percentage")
    known = isinstance(percent, int | float) and not isinstance(percent, bool) and abs(percent) < math.inf
    # The percentage is 0 / 0 where no layer took any time.
    return LayerTime(name, _time(row, "averageMs", source), median, float(percent) if known and percent is not None else 0.0)


def _exported_layer(layer: Any, source: str) -> ExportedLayer:
    if isinstance(layer, str):
        return ExportedLayer(layer)
    if not isinstance(layer, dict) or not isinstance(layer.get("Name"), str):
        raise InputError(f"{source}: a layer has no name", REMEDY)
    inputs, outputs = _tensors(layer.get("Inputs")), _tensors(layer.get("Outputs"))
    return ExportedLayer(layer["Name"], _text(layer, "LayerType"), inputs, outputs, _text(layer, "Metadata"))


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _tensors(listed: Any) -> tuple[str, ...]:
    entries = listed if isinstance(listed, list) else []
    return tuple(f"{_text(one, 'Name')}: {_text(one, 'Format/Datatype')}" for one in entries if isinstance(one, dict))
