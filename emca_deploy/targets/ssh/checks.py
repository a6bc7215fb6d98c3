"""What a machine must have for the work at hand, found out before anything is sent."""

from collections.abc import Sequence

from emca_deploy.backends.registry import BACKENDS
from emca_deploy.targets.ssh.address import Destination
from emca_deploy.targets.ssh.probe import Facts, check_runtime

__all__ = ["check_backends"]

_ONNX = "onnxruntime"


def check_backends(destination: Destination, facts: Facts, backends: Sequence[str], artifacts: Sequence[str]) -> None:
    """Refuse a machine without the runtimes that are asked for.

    Args:
        destination: the machine.
        facts: of it.
        backends: to run on; none means the artifacts' own.
        artifacts: "path" or "backend=path", as the far side calls them.

    Raises:
        MissingError: one is not there.
    """
    if facts.python is None:  # which is what there is to be said then
        return
    asked = {*backends, *(text.partition("=")[0] for text in artifacts if "=" in text)}
    if not asked and any(text.endswith(".onnx") for text in artifacts):
        asked = {_ONNX}
    for name in sorted(asked):
        module = BACKENDS[name].module if name in BACKENDS else None
        if module is not None:
            check_runtime(destination, facts, module, f"backend '{name}'")
