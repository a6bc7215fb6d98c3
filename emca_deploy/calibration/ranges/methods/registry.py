"""The registry of calibration methods, whose code is imported when a method is used."""

from importlib import import_module
from math import nan
from typing import TYPE_CHECKING, NamedTuple

from emca_deploy.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from emca_deploy.calibration.ranges.methods.base import Method

__all__ = ["METHODS", "MethodLine", "parse_method", "usage"]


class MethodLine(NamedTuple):
    """A method's entry.

    Attributes:
        place: "module:Class" of the method.
        parameter: word for the parameter in help texts; empty for a method without one.
    """

    place: str
    parameter: str = ""


_HERE = "emca_deploy.calibration.ranges.methods"

METHODS: dict[str, MethodLine] = {
    "minmax": MethodLine(f"{_HERE}.minmax:MinMax"),
    "moving-average": MethodLine(f"{_HERE}.moving_average:MovingAverage", "MOMENTUM"),
    "percentile": MethodLine(f"{_HERE}.percentile:Percentile", "P"),
    "entropy": MethodLine(f"{_HERE}.entropy:Entropy"),
    "mse": MethodLine(f"{_HERE}.mse:LeastSquaredError", "WEIGHT"),
}


def usage() -> str:
    """Return all methods for a help text: "minmax, percentile[:P]"."""
    return ", ".join(f"{name}[:{line.parameter}]" if line.parameter else name for name, line in METHODS.items())


def parse_method(text: str) -> "Method":
    """Return the method of a text such as "mse" or "percentile:99.9".

    Raises:
        UnknownNameError: there is no such method.
        InputError: the parameter is out of range, or the method has none.
    """
    name, _, given = text.partition(":")
    if name not in METHODS:
        raise UnknownNameError.of("calibration method", name, METHODS, f"one of: {', '.join(METHODS)}")
    module, _, attribute = METHODS[name].place.partition(":")
    kind: type[Method] = getattr(import_module(module), attribute)
    if not given:
        return kind(kind.default)
    if not METHODS[name].parameter:
        raise InputError(f"--method {text}: {name} has no parameter", f"write {name}")
    low, high = kind.bounds
    try:
        parameter = float(given)
    except ValueError:
        parameter = nan
    if not low <= parameter <= high or (kind.below_bound and parameter == high):
        example = low if kind.default is None else kind.default
        raise InputError(f"--method {text}: '{given}' is not within {low:g} and {high:g}", f"write {name}:{example}")
    return kind(parameter)
