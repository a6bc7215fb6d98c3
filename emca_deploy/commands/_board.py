"""What the commands share that run on a Jetson board."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from emca_deploy.commands._console import echo

if TYPE_CHECKING:
    from emca_deploy.machines.jetson.session import BoardSession

__all__ = ["check_power_mode", "on_board", "power_mode_option"]

power_mode_option = click.option(
    "--power-mode",
    metavar="NAME|ID",
    help="Jetson: nvpmodel's power mode, for as long as this takes; the one from before is put back. Needs root.",
)


def check_power_mode(target: str | None, power_mode: str | None) -> None:
    """Refuse --power-mode on a target that has none.

    Raises:
        InputError: the target is no board.
    """
    from emca_deploy.errors import InputError

    kind = (target or "cpu").partition(":")[0]
    if power_mode is not None and kind in ("cpu", "gpu"):
        raise InputError(f"--power-mode {power_mode}: target '{kind}' has no power modes", "add --target jetson, on the board")


@contextmanager
def on_board(target: str | None, power_mode: str | None) -> "Iterator[BoardSession | None]":
    """Yield the board's session where the target is one, else None; what it warns of goes to stderr after the work.

    Raises:
        InputError: the target has no power modes.
        MissingError: this is no Jetson, or the power mode cannot be set.
    """
    check_power_mode(target, power_mode)
    if target != "jetson":
        yield None
        return
    from emca_deploy.errors import MissingError
    from emca_deploy.machines.jetson.session import board_session

    warnings: list[str] = []
    finished = False
    try:
        with board_session(power_mode) as session:
            yield session
            warnings += session.warnings
            finished = True
    except MissingError as exc:
        if not finished:
            raise
        # The power mode could not be put back: to be told, but not at the price of what was done.
        warnings.append(f"{exc.problem}: {exc.remedy}")
    for warning in warnings:
        echo(f"warning: {warning}", err=True)
