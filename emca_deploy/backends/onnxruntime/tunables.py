"""Settings of ONNX Runtime that are worth trying."""

from emca_deploy.backends.base import Situation
from emca_deploy.errors import InputError
from emca_deploy.results.tuning import Tunable

__all__ = ["tunables"]


def tunables(situation: Situation) -> list[Tunable]:
    """Return the settings worth trying; raise InputError if the processor does not compute in a requested precision."""
    on_arm = situation.cpu.architecture in ("aarch64", "arm64")
    fastmath = on_arm and "bf16" in situation.precisions and "bf16" in situation.cpu.instruction_sets
    if situation.precisions and not fastmath:
        asked = ", ".join(situation.precisions)
        raise InputError(
            f"ONNX Runtime does not compute in {asked} on this processor", "leave out --allow-precision, or use openvino"
        )
    return [
        Tunable("spin", True, (False,), threaded=True),
        Tunable("force_spinning_stop", False, (True,), threaded=True),
        Tunable("execution_mode", "sequential", ("parallel",), threaded=True),
        Tunable("graph_optimization", "all", () if situation.engine else ("layout", "extended")),
        Tunable("flush_denormals", False, (True,)),
        Tunable("fastmath_bf16", False, (True,) if fastmath else ()),
    ]
