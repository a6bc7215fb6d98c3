"""Settings of OpenVINO that are worth trying."""

from pathlib import Path

from emca_deploy._optional import import_optional
from emca_deploy.backends.base import PRECISION_OF_HINT, Situation
from emca_deploy.backends.openvino.runner import PROPERTIES
from emca_deploy.errors import InputError
from emca_deploy.results.tuning import Tunable

__all__ = ["tunables"]

HYBRID = Path("/sys/devices/cpu_core")
"""Linux has this folder where the processor has two kinds of cores."""

AUTO = "AUTO"
"""OpenVINO chooses the number of streams."""


def tunables(situation: Situation) -> list[Tunable]:
    """Return the settings worth trying in a situation.

    Raises:
        InputError: the processor does not compute in a requested precision.
        MissingError: OpenVINO is not installed.
    """
    core = import_optional("openvino").Core()
    offered = {str(name).lower() for name in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")}
    for precision in situation.precisions:
        if PRECISION_OF_HINT.get(precision) not in offered:
            offers = ", ".join(sorted(offered))
            raise InputError(
                f"OpenVINO does not compute in {precision} on this processor: it offers {offers}", "leave out --allow-precision"
            )
    properties = {str(name) for name in core.get_property("CPU", "SUPPORTED_PROPERTIES")}
    cpu = situation.cpu
    streams = tuple(n for n in (1, 2, 4, 8, 16) if n <= situation.threads_max) if situation.offline else ()
    hybrid = ("PCORE_ONLY", "ECORE_ONLY") if HYBRID.exists() else ()
    found = [
        Tunable("streams", AUTO if situation.offline else 1, streams),
        Tunable("hint", "THROUGHPUT" if situation.offline else "LATENCY", ("LATENCY",) if situation.offline else ()),
        Tunable("precision", "f32", situation.precisions),
        Tunable("pinning", True, (False,)),
        Tunable("hyper_threading", True, (False,) if cpu.online_cores > cpu.physical_cores else ()),
        Tunable("core_type", "ANY_CORE", hybrid),
        Tunable("flush_denormals", False, (True,)),
    ]
    optional = ("pinning", "hyper_threading", "core_type")
    return [tunable for tunable in found if tunable.name not in optional or PROPERTIES[tunable.name] in properties]
