"""Command groups."""

import click

from emca_deploy.errors import UnknownNameError

__all__ = ["Group"]


class Group(click.Group):
    """A group that suggests the nearest command for one that is not recognized."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that a command line begins with.

        Raises:
            UnknownNameError: no command has that name.
        """
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            what = "command" if ctx.parent is None else f"command of `{self.name}`"
            raise UnknownNameError.of(what, args[0], known, f"`{ctx.command_path} --help` lists them")
        return super().resolve_command(ctx, args)
