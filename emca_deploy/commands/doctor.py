"""`emca-deploy doctor`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from emca_deploy.commands._console import console_for, json_option, show

if TYPE_CHECKING:
    from emca_deploy.api.doctor import DoctorReport

__all__ = ["command"]


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Show what this machine can do, and what to fix on it: what makes INT8 slow, inexact or hard to measure.

    \b
    Example:
      emca-deploy doctor
    """
    from emca_deploy.api.doctor import doctor

    report = doctor()
    show(report, as_json, lambda: _print(report))


def _print(report: "DoctorReport") -> None:
    from rich.markup import escape

    console = console_for(highlight=False)
    for name, status in report.backends.items():
        state = "[green]ready[/]" if status["usable"] else f"[yellow]{escape(status['reason'])}[/]"
        console.print(f"{name:14}{status['version'] or '-':14}{state}", soft_wrap=True)
        if not status["usable"]:
            console.print(f"{'':28}[dim]{escape(status['remedy'] or '')}[/]", soft_wrap=True)
    console.print()
    for name, value in [*_machine_rows(report), *(board_rows(report.board) if report.board else ())]:
        console.print(f"{name:14}{escape(value)}", soft_wrap=True)
    console.print()
    for trap in report.traps:
        console.print(f"[yellow]trap[/] {trap.id}: {escape(trap.problem)}\n  try: {escape(trap.remedy)}", soft_wrap=True)
    if not report.traps:
        console.print("[green]no traps found[/]")


def _machine_rows(report: "DoctorReport") -> list[tuple[str, str]]:
    """Return (name, value) of each line about the machine."""
    cpu = report.cpu
    sets = [f"{name:13}{meaning}" for name, meaning in cpu["instruction_sets"].items()]
    return [
        ("processor", f"{cpu['model']}, {cpu['architecture']}"),
        ("cores", f"{cpu['logical_cores']} usable of {cpu['online_cores']} ({cpu['physical_cores']} physical)"),
        ("threads", f"{report.threads} unless --threads says otherwise"),
        *(("" if index else "instructions", text) for index, text in enumerate(sets)),
        *(("GPU", gpu) for gpu in report.gpus),
        ("memory", f"{report.memory_mib / 1024:.1f} GiB" if report.memory_mib else "unknown"),
        ("python", f"{report.python}, {report.platform}"),
    ]


def board_rows(board: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) of each line about a Jetson board."""
    mode, clocks = board["power_mode"], board["clocks"]
    releases = [
        f"L4T {board['l4t'] or 'unknown'}",
        f"JetPack {board['jetpack'] or 'unknown'}",
        *(
            f"{title} {board[name]}{'' if board['origins'][name] == 'installed' else ' (of this JetPack; not found installed)'}"
            for name, title in (("tensorrt", "TensorRT"), ("cuda", "CUDA"))
            if board[name]
        ),
    ]
    dla = "number unknown" if board["dla_cores"] is None else str(board["dla_cores"] or "none")
    chip = f"{board['soc'] or 'unknown chip'}, compute capability {board['capability'] or 'unknown'}, DLA cores: {dla}"
    memory = f"{board['memory_mib'] / 1024:.1f} GiB, " if board["memory_mib"] else ""
    locked = {True: "locked", False: "not locked", None: "unknown"}[clocks["locked"]]
    fastest = {True: ", the fastest", False: f" (fastest: {mode['fastest']})", None: ""}[mode["is_fastest"]]
    return [
        ("board", board["model"]),
        ("", chip),
        ("", ", ".join(releases)),
        ("", f"{memory}one memory for processor and GPU"),
        ("power mode", f"{mode['name'] or 'unknown'}{fastest}; clocks {locked}"),
        *(("", note) for note in board["notes"]),
    ]
