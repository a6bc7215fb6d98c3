"""Read a result.json whose every value has been checked, so that drawing it cannot fail halfway."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from emca_deploy.errors import InputError
from emca_deploy.harness.results import DeployReport, read_deploy_report

__all__ = ["RESULT_NAME", "read_result"]

RESULT_NAME = "result.json"


def read_result(place: Path) -> DeployReport:
    """Return the report of a finished deployment.

    Args:
        place: the folder that `deploy` or `demo` made, or the result.json in it.

    Raises:
        InputError: there is none, or it is not ours, damaged, or of another schema version.
    """
    if not place.exists():
        raise InputError(f"{place}: no such folder", "name the folder that `deploy -o` or `demo -o` made")
    path = place / RESULT_NAME if place.is_dir() else place
    if not path.exists():
        raise InputError(f"{place}: has no {RESULT_NAME}", "name the folder of a finished `deploy` or `demo`")
    try:
        report = read_deploy_report(path)
        wrong = _misfit(report, DeployReport, "") or _contradiction(report)
    except (AttributeError, RecursionError, UnicodeDecodeError) as exc:
        wrong = str(exc)
    if wrong:
        raise InputError(f"{path}: not a result of ours, or damaged: {wrong}", "run `deploy` or `demo` again")
    return report


def _contradiction(report: DeployReport) -> str:
    if not report.candidates:
        return "it has no candidates"
    if report.baseline not in (candidate.name for candidate in report.candidates):
        return "its baseline is not among its candidates"
    for candidate in report.candidates:
        summary = candidate.latency.latency_ms
        if min(summary.min, summary.p50, candidate.speedup, candidate.file_mib, *candidate.latency.samples_ms, 1.0) < 0:
            return f"'{candidate.name}' has a negative latency, speed-up or size"
    return ""


def _misfit(value: Any, wanted: Any, where: str) -> str:
    """Return which value is not of the type its record declares, or "" where all are."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if is_dataclass(wanted) and isinstance(wanted, type):
        if not isinstance(value, wanted):
            return f"{where}: is not a record"
        hints = get_type_hints(wanted)
        inner = ((getattr(value, f.name), hints[f.name], f"{where}.{f.name}".strip(".")) for f in fields(wanted))
        return next((wrong for part in inner if (wrong := _misfit(*part))), "")
    if origin in (Union, UnionType):
        return "" if any(not _misfit(value, choice, where) for choice in arguments) else _misfit(value, arguments[0], where)
    if origin is tuple:
        return _misfit_tuple(value, arguments, where)
    return "" if _fits(value, wanted, origin, arguments) else f"{where}: {str(value)[:40]!r} is not what belongs there"


def _misfit_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> str:
    if not isinstance(value, (list, tuple)):
        return f"{where}: is not a list"
    if arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    if len(value) != len(arguments):
        return f"{where}: has {len(value)} values, not {len(arguments)}"
    parts = ((item, kind, f"{where}[{index}]") for index, (item, kind) in enumerate(zip(value, arguments, strict=True)))
    return next((wrong for part in parts if (wrong := _misfit(*part))), "")


def _fits(value: Any, wanted: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    if origin is Literal:
        return value in arguments
    if wanted is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted is type(None):
        return value is None
    if origin is dict:
        return isinstance(value, Mapping)
    return isinstance(value, wanted)
