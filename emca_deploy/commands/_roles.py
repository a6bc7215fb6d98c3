"""The files of a command line: none may be both read and written, or be written twice."""

import functools
from copy import copy
from typing import Any

import click

from emca_deploy.api.file_uses import ARTIFACTS, FileUse, check_uses, derived_uses, paths_in
from emca_deploy.commands._types import FileType

__all__ = ["with_roles"]


def with_roles(name: str, command: click.Command) -> click.Command:
    """Return a command that first checks that no file of its command line is both read and written."""
    inner = command.callback
    assert inner is not None

    @functools.wraps(inner)
    def checked(*args: Any, **values: Any) -> Any:
        uses = [use for parameter in command.params for use in _uses(parameter, values)]
        check_uses([*uses, *derived_uses(name, values, uses)])
        return inner(*args, **values)

    result = copy(command)
    result.callback = checked
    return result


def _uses(parameter: click.Parameter, values: dict[str, Any]) -> list[FileUse]:
    key, kind = parameter.name or "", parameter.type
    if not isinstance(kind, FileType) and key not in ARTIFACTS:
        return []
    shown = parameter.human_readable_name
    if isinstance(parameter, click.Option):
        shown = "-o" if "-o" in parameter.opts else parameter.opts[-1]
    return [FileUse(path, shown, shown, isinstance(kind, FileType) and kind.written) for path in paths_in(values.get(key))]
