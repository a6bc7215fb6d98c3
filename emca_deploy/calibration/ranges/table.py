"""The range table: measured once, saved, and reused by every backend's placement and by other methods."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from emca_deploy._version import __version__
from emca_deploy.artifacts import Preprocessing, write_json
from emca_deploy.calibration.ranges.drawing import AUTO, Samples
from emca_deploy.calibration.ranges.histogram import Histogram
from emca_deploy.calibration.ranges.methods.base import Method
from emca_deploy.calibration.ranges.methods.registry import parse_method
from emca_deploy.calibration.ranges.observers import Observation, TensorRange
from emca_deploy.canonical.canonicalize import CANONICAL_VERSION
from emca_deploy.errors import DataError, InputError
from emca_deploy.results.codec import from_json, to_json
from emca_deploy.results.drawing import Drawing

__all__ = ["ELSEWHERE", "MethodRanges", "RangeTable", "TableKey", "by_another_method", "read_table", "table_path", "write_table"]

TABLE_VERSION = 2
"""Version of the file; version 1, with minima and maxima only, is still read."""

MEASURED = 4
"""Revision of measuring, raised where the same images give other observations: 1 observed operands of residual Adds whole, 2 only
what the ReLU after the Add passes, 3 also cuts inputs of HardSwish and observes more tensors, 4 also observes without kept-out
images, and counts a sample of large tensors' values."""

_KNOWN = frozenset({"range", "threshold", "minimum", "maximum", "summary", "histogram", "trial"})
"""Fields of a tensor in the file; all others are kept by a method's own observer."""

SUMMARY_QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999, 0.9999)


@dataclass(frozen=True)
class TableKey:
    """The values that a table's ranges depend on; a table is reused only where all are equal.

    Attributes:
        model_sha256: digest of the fp32 ONNX file with its external data.
        data_sha256: digest of the calibration data set's content.
        method: calibration method with its parameter, "minmax" or "percentile:99.99".
        samples: number of calibration images, or "auto".
        seed: random seed of the choice of images.
        measured: revision of measuring; 1 in a table without one.
        canonical: version of the rules that rewrite a graph before it is measured; 0 in a table without one.
    """

    model_sha256: str
    data_sha256: str
    preprocessing: Preprocessing
    method: str
    samples: Samples
    seed: int
    measured: int = MEASURED
    canonical: int = CANONICAL_VERSION

    def difference(self, wanted: "TableKey") -> str:
        """Return what this key has other than the wanted one, in words."""
        names = {
            "model_sha256": "model", "data_sha256": "data set", "preprocessing": "preprocessing",
            "method": "method", "samples": "number of images", "seed": "seed", "measured": "revision of measuring in emca-deploy",
            "canonical": "revision of rewriting graphs in emca-deploy",
        }  # fmt: skip
        differing = [words for name, words in names.items() if getattr(self, name) != getattr(wanted, name)]
        return f"was measured with another {' and '.join(differing)}"


class MethodRanges(Mapping[str, TensorRange]):
    """A method's ranges of observed tensors by name; each is computed when it is first read."""

    def __init__(self, method: Method, observations: Mapping[str, Observation]) -> None:
        self._method, self._observations = method, observations
        self._found: dict[str, TensorRange] = {}

    def __getitem__(self, name: str) -> TensorRange:
        if name not in self._found:
            self._found[name] = self._method.range_of(self._observations[name])
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._observations)

    def __len__(self) -> int:
        return len(self._observations)


@dataclass(frozen=True)
class RangeTable:
    """Ranges and observations by tensor name, with their key; a table of version 1 has no observations.

    Attributes:
        drawing: how the images were drawn, where the key's number of images is "auto".
    """

    key: TableKey
    ranges: dict[str, TensorRange]
    observations: dict[str, Observation] = field(default_factory=dict)
    drawing: Drawing | None = None

    @property
    def samples(self) -> int:
        """Number of images that the ranges come from."""
        return self.drawing.used if self.drawing is not None else int(self.key.samples)


ELSEWHERE = "say with --table where ranges and weights may be kept: --table FILE.ranges.json"
"""Remedy where the folder of a model cannot be written to."""


def table_path(model: Path) -> Path:
    """Return the default path of a model's range table, next to the model."""
    return model.with_name(model.stem + ".ranges.json")


def by_another_method(table: RangeTable, key: TableKey) -> RangeTable | None:
    """Return the table for a key, made from another method's observations; None where these do not suffice."""
    if table.key == key:
        return table
    if replace(table.key, method=key.method) != key or table.observations.keys() != table.ranges.keys():
        return None
    method = parse_method(key.method)
    if not method.reuses:
        return None
    try:
        ranges = {name: method.range_of(seen) for name, seen in table.observations.items()}
    except ValueError:
        return None
    return RangeTable(key, ranges, table.observations, table.drawing)


def write_table(path: Path, table: RangeTable) -> None:
    """Write a table, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {name: _packed(values, table.observations.get(name)) for name, values in table.ranges.items()}
    drawing = {"drawing": to_json(table.drawing)} if table.drawing is not None else {}
    head = {"table_version": TABLE_VERSION, "emca_deploy": __version__, "key": asdict(table.key), **drawing}
    write_json(path, {**head, "tensors": tensors})


def _packed(values: TensorRange, seen: Observation | None) -> dict[str, Any]:
    document: dict[str, Any] = {"range": [values.minimum, values.maximum]}
    if values.threshold is not None:
        document["threshold"] = values.threshold
    if seen is None:
        return document
    document["minimum"], document["maximum"] = seen.minimum, seen.maximum
    document |= {name: list(kept) if isinstance(kept, tuple) else kept for name, kept in seen.own.items()}
    if seen.histogram is not None:
        document["summary"] = seen.histogram.summary(SUMMARY_QUANTILES)
        document["histogram"] = seen.histogram.packed
    if seen.trial is not None and seen.trial.histogram is not None:
        ends = {"minimum": seen.trial.minimum, "maximum": seen.trial.maximum}
        document["trial"] = ends | {"histogram": seen.trial.histogram.packed}
    return document


def read_table(path: Path) -> RangeTable:
    """Read a table.

    Raises:
        InputError: the file is no range table, or of another version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        key = {"measured": 1, "canonical": 0, **document["key"]}
        key["preprocessing"] = from_json(Preprocessing, key["preprocessing"])
        if document["table_version"] == 1:
            ranges = {str(name): _range(ends, None) for name, ends in document["ranges"].items()}
            return RangeTable(TableKey(**key), ranges)
        _check_version(document["table_version"])
        tensors = {str(name): dict(values) for name, values in document["tensors"].items()}
        ranges = {name: _range(values["range"], values.get("threshold")) for name, values in tensors.items()}
        seen = {name: _observation(values) for name, values in tensors.items() if "minimum" in values}
        drawing = from_json(Drawing, document["drawing"]) if "drawing" in document else None
        _check_drawing(key["samples"], drawing)
        return RangeTable(TableKey(**key), ranges, seen, drawing)
    except (DataError, OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise InputError(
            f"{path}: not a valid range table: {exc}", "name another file with --table, or move this one away and calibrate again"
        ) from exc


def _check_version(version: object) -> None:
    if version != TABLE_VERSION:
        raise ValueError(f"table version {version}; this emca-deploy reads {TABLE_VERSION} and 1")


def _check_drawing(samples: object, drawing: Drawing | None) -> None:
    if (samples == AUTO) is (drawing is None):
        raise ValueError(f"samples {samples} with{'out' if drawing is None else ''} a drawing")


def _range(ends: Any, threshold: Any) -> TensorRange:
    low, high = _ends(ends)
    if threshold is None:
        return TensorRange(low, high)
    if not 0 <= float(threshold) < float("inf"):
        raise ValueError(f"threshold {threshold}")
    return TensorRange(low, high, float(threshold))


def _ends(ends: Any) -> tuple[float, float]:
    low, high = (float(end) for end in ends)
    if not -float("inf") < low <= high < float("inf"):
        raise ValueError(f"range [{low}, {high}]")
    return low, high


def _observation(values: Mapping[str, Any]) -> Observation:
    low, high = _ends((values["minimum"], values["maximum"]))
    own = {name: _kept(value) for name, value in values.items() if name not in _KNOWN}
    histogram = Histogram.unpacked(values["histogram"], low, high) if "histogram" in values else None
    return Observation(low, high, histogram, own, _observation(values["trial"]) if "trial" in values else None)


def _kept(value: Any) -> float | tuple[float, ...]:
    """Return the number, or numbers, that a method's own observer kept."""
    numbers = tuple(float(number) for number in (value if isinstance(value, list) else [value]))
    if not all(map(isfinite, numbers)):
        raise ValueError(f"values {value}")
    return numbers if isinstance(value, list) else numbers[0]
