"""Names of backends, for options and their help texts; no backend's code or library is loaded for them."""

from emca_deploy.backends.records import DEFAULT, names_where, one_of
from emca_deploy.calibration.ranges.methods.registry import usage

__all__ = ["BUILT", "DEFAULT", "METHODS", "PLACED", "PLANNED", "TUNED", "listed"]

BUILT = names_where(builder=True)
"""Backends that `build` makes engines for."""

METHODS = usage()
"""Calibration methods, as a help text lists them."""

PLACED = names_where(recipe=True)
"""Backends that `calibrate` and `sensitivity` have a recipe for."""

PLANNED = names_where(trt_settings=True)
"""Backends that `plan` knows, and that have TensorRT's settings."""

TUNED = names_where(tunables=True)
"""Backends whose settings `tune` tries."""


def listed(names: tuple[str, ...]) -> str:
    """Return names as a help text lists them: "a, b or c"."""
    return one_of(names)
