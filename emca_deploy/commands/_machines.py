"""Named machines, and what each can do, on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emca_deploy._text import printable
from emca_deploy.commands._console import echo, table_console

if TYPE_CHECKING:
    from emca_deploy.api.devices import DeviceCheck, DevicesReport

__all__ = ["print_check", "print_devices"]


def print_devices(report: "DevicesReport") -> None:
    """Print one row per machine."""
    from emca_deploy.reporting.output import show_table

    texts = ((each.name, each.target, each.power_mode or "-", each.notes) for each in report.devices)
    rows = (([printable(text) for text in row], False) for row in texts)
    show_table(table_console(), ("name", "target", "power mode", "notes"), rows, left=4)


def print_check(checks: "Sequence[DeviceCheck]") -> None:
    """Print what each machine can do, and what it lacks."""
    for check in checks:
        _print_one(check)
    if not checks:
        echo("there are no named machines; add one: emca-deploy devices add NAME ssh://user@host")


def _print_one(check: "DeviceCheck") -> None:
    echo(f"{check.device.name} ({check.device.target})")
    found, error = check.found, check.error
    if error is not None:
        _row("not reached", error.problem)
        _row("  try", error.remedy)
    if found is None:
        return
    by = "" if found.backends or not found.can else ", with trtexec"
    _row("can", f"{', '.join(found.can)}{by}" if found.can else "nothing yet")
    facts = found.facts
    _row("Python", f"{facts.python_version or 'none'}{f', {facts.python}' if facts.python else ' (not usable)'}")
    _row("runtimes", ", ".join(check.runtimes) or "none")
    _print_board(check)
    if facts.machine:
        _row("machine", f"{facts.machine}, {facts.system}")
    if facts.trtexec:
        _row("trtexec", f"{facts.trtexec}, TensorRT {found.trtexec_version or 'of an unknown version'}")
    if facts.free_mib is not None:
        _row("free disk", f"{facts.free_mib / 1024:.1f} GiB")
    if facts.clock_offset_s is not None:
        ahead = round(facts.clock_offset_s, 1)
        _row("clock", f"{ahead:+.1f} s" if ahead else "in sync")
    for lack in found.lacks:
        _row("missing" if lack.blocks else "note", lack.problem)
        _row("  try", lack.remedy)


def _print_board(check: "DeviceCheck") -> None:
    if check.found is None or check.found.board is None:
        return
    board = check.found.board
    facts, mode = board.facts, board.power_mode
    releases = {"L4T": facts.l4t, "JetPack": facts.jetpack, "TensorRT": facts.tensorrt, "CUDA": facts.cuda}
    _row("board", facts.model)
    _row("", ", ".join(f"{name} {version}" for name, version in releases.items() if version) or "unknown release")
    if mode is not None:
        faster = board.fastest_mode not in (None, mode)
        _row("power mode", f"{mode} (fastest: {board.fastest_mode})" if faster else mode)


def _row(name: str, text: str) -> None:
    echo(f"  {name:13}{' '.join(text.split())}")
