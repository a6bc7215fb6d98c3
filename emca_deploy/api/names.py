"""Names for options and help texts; no backend's code or library is loaded for them."""

from emca_deploy.backends.records import DEFAULT, names_where, one_of
from emca_deploy.calibration.ranges.methods.registry import usage

__all__ = ["BUILT", "DEFAULT", "FINETUNE_BUDGET_S", "METHODS", "PLACED", "PLANNED", "TUNED"]

BUILT = one_of(names_where(builder=True))
"""The backends that `build` makes engines for: "a, b or c"."""

FINETUNE_BUDGET_S = 240.0
"""Most seconds of fine-tuning, unless the user gives another limit."""

METHODS = usage()
"""The calibration methods: "a, b[:PARAMETER]"."""

PLACED = one_of(names_where(recipe=True))
"""The backends that `calibrate` and `sensitivity` have a recipe for."""

PLANNED = names_where(trt_settings=True)
"""The backends that `plan` knows."""

TUNED = one_of(names_where(tunables=True))
"""The backends whose settings `tune` tries."""
