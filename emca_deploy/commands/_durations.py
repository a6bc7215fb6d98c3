"""The type of options that take a duration."""

from typing import Any

import click

from emca_deploy._text import parse_duration
from emca_deploy.errors import InputError

__all__ = ["DurationType"]


class DurationType(click.FloatRange):
    """A duration in seconds: "90", "90s", "20m", "1.5h" or "500ms"."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        seconds = parse_duration(value) if isinstance(value, str) else value
        if seconds is None:
            name = param.opts[0] if param is not None else "duration"
            raise InputError(f"{name} {value}: not a duration", f"for example {name} 90, 90s or 20m")
        found: float = super().convert(seconds, param, ctx)
        return found
