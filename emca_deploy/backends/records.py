"""The list of backends. Nothing here imports a backend's code or its library, only its record.

A backend is one folder with a `Backend` in it and one line in `BUILT_IN`. Other distributions add theirs through the entry point
group `emca_deploy.backends`, whose values have the form of those lines.
"""

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from emca_deploy.backends.backend import Backend, load_part

__all__ = ["BACKENDS", "DEFAULT", "ENTRY_POINTS", "names_where", "one_of"]

ENTRY_POINTS = "emca_deploy.backends"

BUILT_IN = (
    "emca_deploy.backends.onnxruntime:BACKEND",
    "emca_deploy.backends.openvino:BACKEND",
    "emca_deploy.backends.torch:BACKEND",
    "emca_deploy.backends.tensorrt:TENSORRT",
    "emca_deploy.backends.tensorrt:TENSORRT_RTX",
    "emca_deploy.backends.fake:BACKEND",
)
"""Where the records of this package's backends are. The first one is the default and the reference."""


def _found() -> Iterator[Backend]:
    for place in BUILT_IN:
        yield load_part(place)
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            record = entry.load()
        except Exception as exc:  # whatever a foreign module raises
            record = Backend(entry.name, failure=f"its entry point '{entry.value}' cannot be loaded: {exc}")
        if not isinstance(record, Backend):
            record = Backend(entry.name, failure=f"its entry point '{entry.value}' is no `Backend`")
        yield record


def _by_name() -> dict[str, Backend]:
    found: dict[str, Backend] = {}
    for record in _found():
        found.setdefault(record.name, record)  # nobody replaces one of this package's
    return found


BACKENDS: dict[str, Backend] = _by_name()
"""Every backend by name, this package's first."""


DEFAULT = next(iter(BACKENDS))
"""The backend of .onnx files where nothing else decides, and the reference that others are compared with."""


def names_where(**wanted: Any) -> tuple[str, ...]:
    """Return the names of the backends that are offered and have these attributes, each compared as true or false."""
    return tuple(
        name
        for name, record in BACKENDS.items()
        if not record.hidden
        and not record.failure
        and all(bool(getattr(record, attribute)) == value for attribute, value in wanted.items())
    )


def one_of(names: tuple[str, ...]) -> str:
    """Return names for a sentence: "a, b or c"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
