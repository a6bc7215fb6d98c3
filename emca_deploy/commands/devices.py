"""`emca-deploy devices`: machines with names, and what each of them can do."""

from typing import TYPE_CHECKING, Any

import click

from emca_deploy._text import printable
from emca_deploy.commands._console import echo, json_option, print_json, table_console
from emca_deploy.commands._progress_bars import progress
from emca_deploy.errors import EmcaError, UnknownNameError

if TYPE_CHECKING:
    from rich.text import Text

    from emca_deploy.targets.capabilities import Capabilities
    from emca_deploy.targets.named_machines import Device

__all__ = ["command"]

SCHEMA_VERSION = 1
NOT_USABLE = 3


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
    from emca_deploy.targets.named_machines import devices_file, read_devices

    devices = list(read_devices().values())
    if as_json:
        documents = [device.to_dict() for device in devices]
        print_json({"schema_version": SCHEMA_VERSION, "file": str(devices_file()), "devices": documents})
    elif devices:
        _print_devices(devices)
    else:
        echo(f"no devices in {devices_file()}; add one: emca-deploy devices add NAME ssh://user@host")


@command.command("add")
@click.argument("name")
@click.argument("target")
@click.option("--power-mode", metavar="NAME|ID", help="Of a Jetson board, for every run on it that names no other.")
@click.option("--notes", default="", metavar="TEXT", help="For people.")
def add(name: str, target: str, power_mode: str | None, notes: str) -> None:
    """Give TARGET the NAME by which `--target` finds it.

    TARGET is ssh://[user@]host[:port], where host may be one of ~/.ssh/config, or cpu, gpu, gpu:1 or jetson of this machine.

    \b
    emca-deploy devices add orin ssh://me@orin.local --power-mode MAXN
    """
    from emca_deploy.targets.named_machines import Device, add_device

    path = add_device(Device(name, target, power_mode, notes))
    echo(f"{name} is {target} ({path}); what it can do: emca-deploy devices check {name}", err=True)


@command.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Forget NAME. The machine itself is not touched."""
    from emca_deploy.targets.named_machines import remove_device

    echo(f"{name} is no more in {remove_device(name)}", err=True)


@command.command("check")
@click.argument("name", required=False)
@json_option
def check(name: str | None, as_json: bool) -> int:
    """Say what the machine called NAME can do, or every one.

    It is asked for its Python, runtimes, trtexec, disk and clock, and what Jetson board it is. Exit code 0 where all of them can
    be used, else that of the first that cannot.
    """
    from emca_deploy.targets.capabilities import examine
    from emca_deploy.targets.named_machines import find_device, read_devices

    devices = list(read_devices().values()) if name is None else [find_device(name)]
    found: list[tuple[Device, Capabilities | EmcaError]] = []
    with progress("checking") as told:
        for done, device in enumerate(devices):
            told(done, len(devices))
            try:
                found.append((device, examine(device.target, device.power_mode)))
            except EmcaError as exc:
                found.append((device, exc))
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "devices": [_document(*each) for each in found]})
    else:
        for each in found:
            _print_check(*each)
        if not found:
            echo("there are no devices; add one: emca-deploy devices add NAME ssh://user@host")
    codes = [_code(outcome) for _, outcome in found]
    return next((code for code in codes if code), 0)


def _code(outcome: "Capabilities | EmcaError") -> int:
    if isinstance(outcome, EmcaError):
        return outcome.exit_code
    return 0 if outcome.usable else NOT_USABLE


def _document(device: "Device", outcome: "Capabilities | EmcaError") -> dict[str, Any]:
    if isinstance(outcome, EmcaError):
        error = {"problem": outcome.problem, "remedy": outcome.remedy}
        return {**device.to_dict(), "reached": False, "usable": False, "error": error}
    return {**device.to_dict(), "reached": True, **outcome.to_dict(), "error": None}


def _print_devices(devices: "list[Device]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for header in ("name", "target", "power mode", "notes"):
        table.add_column(header, overflow="fold")
    for device in devices:
        table.add_row(*map(_plain, (device.name, device.target, device.power_mode or "-", device.notes)))
    table_console().print(table)


def _plain(text: str) -> "Text":
    """Return a text that does nothing to a terminal."""
    from rich.text import Text

    return Text(printable(text))


def _print_check(device: "Device", outcome: "Capabilities | EmcaError") -> None:
    echo(f"{device.name} ({device.target})")
    if isinstance(outcome, EmcaError):
        _row("not reached", outcome.problem)
        _row("  try", outcome.remedy)
        return
    by = "" if outcome.backends or not outcome.can else ", with trtexec"
    _row("can", f"{', '.join(outcome.can)}{by}" if outcome.can else "nothing yet")
    _row("Python", f"{outcome.python_version or 'none'}{f', {outcome.python}' if outcome.python else ' (not usable)'}")
    _row("runtimes", ", ".join(_runtime(outcome, name) for name in outcome.backends) or "none")
    if outcome.board is not None:
        _print_board(outcome)
    if outcome.machine:
        _row("machine", f"{outcome.machine}, {outcome.system}")
    if outcome.trtexec:
        _row("trtexec", f"{outcome.trtexec}, TensorRT {outcome.trtexec_version or 'of an unknown version'}")
    if outcome.free_mib is not None:
        _row("free disk", f"{outcome.free_mib / 1024:.1f} GiB")
    if outcome.clock_offset_s is not None:
        ahead = round(outcome.clock_offset_s, 1)
        _row("clock", f"{ahead:+.1f} s" if ahead else "as here")
    for lack in outcome.lacks:
        _row("missing" if lack.blocks else "note", lack.problem)
        _row("  try", lack.remedy)


def _runtime(found: "Capabilities", name: str) -> str:
    from emca_deploy.backends.registry import BACKENDS

    return f"{name} {found.versions.get(str(BACKENDS[name].module)) or '(unknown version)'}"


def _print_board(found: "Capabilities") -> None:
    assert found.board is not None
    facts, mode = found.board.facts, found.board.power_mode
    releases = {"L4T": facts.l4t, "JetPack": facts.jetpack, "TensorRT": facts.tensorrt, "CUDA": facts.cuda}
    _row("board", facts.model)
    _row("", ", ".join(f"{name} {version}" for name, version in releases.items() if version) or "unknown release")
    if mode is not None:
        faster = found.board.fastest_mode not in (None, mode)
        _row("power mode", f"{mode} (fastest: {found.board.fastest_mode})" if faster else mode)


def _row(name: str, text: str) -> None:
    echo(f"  {name:13}{' '.join(text.split())}")
