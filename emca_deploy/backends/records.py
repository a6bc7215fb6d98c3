"""The list of backends, read from their records without importing their code or libraries.

A backend is one folder with a `Backend` record and one line in `BUILT_IN`. Other distributions add theirs through the entry point
group `emca_deploy.backends`, whose values are written like those lines.
"""

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
"""Records of this package's backends. The first one is the default and the reference."""


def _by_name() -> dict[str, Backend]:
    found: dict[str, Backend] = {record.name: record for record in map(load_part, BUILT_IN)}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            record = entry.load()
        except Exception as exc:  # whatever a foreign module raises
            record = Backend(entry.name, failure=f"its entry point '{entry.value}' cannot be loaded: {exc}")
        if not isinstance(record, Backend):
            record = Backend(entry.name, failure=f"its entry point '{entry.value}' is not a `Backend`")
        found.setdefault(record.name, record)  # an entry point cannot replace one of this package's
    return found


BACKENDS = _by_name()
"""All backends by name, this package's first."""

DEFAULT = next(iter(BACKENDS))
"""The backend that runs .onnx files where nothing else decides, and the reference that others are compared with."""


def names_where(**wanted: Any) -> tuple[str, ...]:
    """Return the names of the offered backends whose attributes are true or false as `wanted`."""
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
