"""The target of a request."""

from dataclasses import replace
from typing import TypeVar

from emca_deploy.requests import BuildRequest, LogitsRequest, ProfileRequest
from emca_deploy.targets.base import Target
from emca_deploy.targets.named_machines import open_target

__all__ = ["ready"]

Asked = TypeVar("Asked", ProfileRequest, LogitsRequest, BuildRequest)


def ready(request: Asked) -> tuple[Target, Asked]:
    """Return the target of a request, and the request with the name of a machine replaced by its target and power mode.

    Raises:
        InputError: the target cannot run this request.
        UnknownNameError: no target or machine has this name.
    """
    target, power_mode = open_target(request.target, request.power_mode)
    request = replace(request, target=target.name, power_mode=power_mode)
    target.check(request)
    return target, request
