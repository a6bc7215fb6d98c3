"""The option `--quiet` of the whole command line."""

import click

__all__ = ["is_quiet"]


def is_quiet() -> bool:
    """Return whether the command line began with `--quiet`."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("quiet"))
