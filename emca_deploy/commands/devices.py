"""`emca-deploy devices`: machines with names, and what each of them can do."""

import click

from emca_deploy.commands._console import echo, json_option, print_json
from emca_deploy.commands._machines import print_check, print_devices
from emca_deploy.commands._progress_bars import progress
from emca_deploy.errors import UnknownNameError

__all__ = ["command"]

SCHEMA_VERSION = 1


class _Group(click.Group):
    """A group that names the nearest of its commands."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise UnknownNameError.of("command of `devices`", args[0], self.commands, "`emca-deploy devices --help` lists them")
        return super().resolve_command(ctx, args)


@click.group("devices", cls=_Group, invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the machines that have a name; `--target NAME` runs on one of them.

    They are kept in ~/.config/emca-deploy/devices.toml (XDG_CONFIG_HOME is heeded; EMCA_DEPLOY_DEVICES names another file), which
    may be edited by hand.

    \b
    emca-deploy devices add orin ssh://me@orin.local --power-mode MAXN --notes "on the shelf"
    emca-deploy devices check orin
    emca-deploy profile model.onnx --target orin
    """
    if ctx.invoked_subcommand is not None:
        return
    from emca_deploy.api.devices import devices

    report = devices()
    if as_json:
        print_json(report)
    elif report.devices:
        print_devices(report)
    else:
        echo(f"no devices in {report.file}; add one: emca-deploy devices add NAME ssh://user@host")


@command.command("add")
@click.argument("name")
@click.argument("target")
@click.option("--power-mode", metavar="NAME|ID", help="Power mode of a Jetson board, for every run on it that names no other.")
@click.option("--notes", default="", metavar="TEXT", help="Notes for people.")
def add(name: str, target: str, power_mode: str | None, notes: str) -> None:
    """Give TARGET the NAME by which `--target` finds it.

    TARGET is ssh://[user@]host[:port], where host may be one of ~/.ssh/config, or cpu, gpu, gpu:1 or jetson of this machine.

    \b
    emca-deploy devices add orin ssh://me@orin.local --power-mode MAXN
    """
    from emca_deploy.api.devices import add_device

    path = add_device(name, target, power_mode, notes)
    echo(f"{name} is {target} ({path}); what it can do: emca-deploy devices check {name}", err=True)


@command.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Forget NAME. The machine itself is not touched."""
    from emca_deploy.api.devices import remove_device

    echo(f"{name} is no more in {remove_device(name)}", err=True)


@command.command("check")
@click.argument("name", required=False)
@json_option
def check(name: str | None, as_json: bool) -> int:
    """Say what the machine called NAME can do, or every one.

    It is asked for its Python, runtimes, trtexec, disk and clock, and what Jetson board it is. Exit code 0 where all of them can
    be used, else that of the first that cannot.
    """
    from emca_deploy.api.devices import check_devices

    with progress("checking") as advance:
        found = check_devices(name, advance)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "devices": [each.to_dict() for each in found]})
    else:
        for each in found:
            print_check(each)
        if not found:
            echo("there are no devices; add one: emca-deploy devices add NAME ssh://user@host")
    return next((each.exit_code for each in found if each.exit_code), 0)
