"""`emca-deploy devices`."""

import click

from emca_deploy.commands import _completions as completions
from emca_deploy.commands._console import echo, json_option, print_json, remark, show
from emca_deploy.commands._group import Group
from emca_deploy.commands._machines import print_check, print_devices
from emca_deploy.commands._progress_bars import progress
from emca_deploy.commands._types import option

__all__ = ["command"]


@click.group("devices", cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List named machines, and examine what each can do. `--target NAME` runs on one of them.

    The names are kept in ~/.config/emca-deploy/devices.toml, which may be edited by hand. XDG_CONFIG_HOME moves the folder, and
    EMCA_DEPLOY_DEVICES names another file.

    \b
    Examples:
      emca-deploy devices add orin ssh://me@orin.local --power-mode MAXN
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
        echo(f"no machines in {report.file}; add one: emca-deploy devices add NAME ssh://user@host")


@command.command("add")
@click.argument("name")
@click.argument("target")
@option("--power-mode", metavar="NAME|ID", help="Jetson: power mode of every run on it that names no other.")
@option("--notes", default="", metavar="TEXT", show_default=False, help="Notes for people.")
def add(name: str, target: str, power_mode: str | None, notes: str) -> None:
    """Give TARGET the name NAME for `--target`.

    TARGET is ssh://[user@]host[:port], where host may come from ~/.ssh/config; or cpu, gpu, gpu:1 or jetson of this machine.

    \b
    Example:
      emca-deploy devices add orin ssh://me@orin.local --power-mode MAXN
    """
    from emca_deploy.api.devices import add_device

    path = add_device(name, target, power_mode, notes)
    remark(f"{name} is {target} ({path}); examine it: emca-deploy devices check {name}")


@command.command("remove")
@click.argument("name", shell_complete=completions.machines)
def remove(name: str) -> None:
    """Remove NAME from the list; the machine itself is not changed.

    \b
    Example:
      emca-deploy devices remove orin
    """
    from emca_deploy.api.devices import remove_device

    remark(f"removed {name} from {remove_device(name)}")


@command.command("check")
@click.argument("name", required=False, shell_complete=completions.machines)
@json_option
def check(name: str | None, as_json: bool) -> int:
    """Examine the machine NAME, or every one.

    The report has its Python, runtimes, trtexec, free disk, clock and Jetson board. The exit code is 0 if all machines can be
    used, else that of the first that cannot.

    \b
    Example:
      emca-deploy devices check orin
    """
    from emca_deploy.api.devices import check_devices

    with progress("checking") as advance:
        found = check_devices(name, advance)
    document = {"schema_version": 1, "devices": found}
    show(document, as_json, lambda: print_check(found))
    return next((each.exit_code for each in found if each.exit_code), 0)
