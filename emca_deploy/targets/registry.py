"""All kinds of targets, and the target that a text names."""

from typing import TYPE_CHECKING

from emca_deploy.backends.backend import load_part
from emca_deploy.errors import UnknownNameError
from emca_deploy.machines.jetson.facts import detect

if TYPE_CHECKING:
    from emca_deploy.targets.base import Target

__all__ = ["KINDS", "parse"]

KINDS: dict[str, str] = {
    "cpu": "emca_deploy.targets.cpu:CpuTarget",
    "gpu": "emca_deploy.targets.gpu:GpuTarget",
    "jetson": "emca_deploy.targets.jetson_board:JetsonTarget",
    "ssh": "emca_deploy.targets.ssh:SshTarget",
}
"""Classes by the part of the name before the colon; they are imported when used."""


def parse(text: str | None) -> "Target":
    """Return the target of a text such as "cpu", "gpu:1" or "ssh://user@host"; nothing is opened.

    Args:
        text: Name of the target; None means jetson on a Jetson board, and cpu elsewhere.

    Raises:
        InputError: the text names no target of its kind.
        UnknownNameError: there is no such kind.
    """
    if text is None:
        text = "cpu" if detect() is None else "jetson"
    kind = text.partition(":")[0]
    if kind not in KINDS:
        raise UnknownNameError.of("target", text, KINDS, "targets: cpu, gpu, jetson, ssh://HOST")
    found: type[Target] = load_part(KINDS[kind])
    return found.parse(text)
