"""Names for options and help texts; no backend's code or library is loaded for them."""

from emca_deploy.backends.records import DEFAULT, names_where, one_of
from emca_deploy.calibration.ranges.methods import registry as methods

__all__ = [
    "BACKENDS",
    "BUILT",
    "DEFAULT",
    "FINETUNE_BUDGET_S",
    "METHODS",
    "METHOD_NAMES",
    "PLACED",
    "PLANNED",
    "TUNED",
    "architecture_names",
    "board_names",
    "corruption_names",
    "machine_names",
    "target_names",
]

BACKENDS = names_where()
"""The names of all backends."""

BUILT = one_of(names_where(builder=True))
"""The backends that `build` makes engines for: "a, b or c"."""

FINETUNE_BUDGET_S = 240.0
"""Most seconds of fine-tuning, unless the user gives another limit."""

METHODS = methods.usage()
"""The calibration methods: "a, b[:PARAMETER]"."""

METHOD_NAMES = tuple(methods.METHODS)
"""The names of the calibration methods."""

PLACED = one_of(names_where(recipe=True))
"""The backends that `calibrate` and `sensitivity` have a recipe for."""

PLANNED = names_where(trt_settings=True)
"""The backends that `plan` knows."""

TUNED = one_of(names_where(tunables=True))
"""The backends whose settings `tune` tries."""


def architecture_names() -> tuple[str, ...]:
    """Return the names of all classifiers and detectors."""
    from emca_deploy.networks.registry import ARCHITECTURES, DETECTORS

    return (*ARCHITECTURES, *DETECTORS)


def board_names() -> tuple[str, ...]:
    """Return the names of the boards that `plan` knows."""
    from emca_deploy.machines.boards import BOARDS

    return tuple(BOARDS)


def machine_names() -> tuple[str, ...]:
    """Return the names of the named machines; none where their file cannot be read."""
    from emca_deploy.targets import devices_file

    return tuple(devices_file.machine_names())


def target_names() -> tuple[str, ...]:
    """Return the kinds of targets and the named machines, as `--target` takes them."""
    from emca_deploy.targets.registry import KINDS

    return (*("ssh://" if kind == "ssh" else kind for kind in KINDS), *machine_names())


def corruption_names() -> tuple[str, ...]:
    """Return the names of corruptions, and of sets of them."""
    from emca_deploy.data.corruptions.registry import corruption_names as names

    return names()
