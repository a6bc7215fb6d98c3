"""Options and arguments of every command match the golden files, and `--help` names every option."""

from collections.abc import Callable
from typing import Any

import pytest

from emca_deploy.cli import COMMANDS, cli, run
from golden.shapes import interface_of


def test_the_commands(golden: Callable[[str, Any], None]) -> None:
    golden("help/commands", list(COMMANDS))


@pytest.mark.parametrize("name", COMMANDS)
def test_options_and_arguments(name: str, golden: Callable[[str, Any], None]) -> None:
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    golden(f"help/{name}", interface_of(command))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    shown = {word.strip(",") for word in out.replace("/", " ").split()}
    assert {option for each in command.params for option in each.opts if option.startswith("-")} <= shown
