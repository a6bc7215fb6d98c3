"""Options and arguments match the golden files; `--help` and the manual page name every option."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
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


ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "man" / "emca-deploy.1"
_UNESCAPED = {r"\-": "-", r"\(aq": "'", r"\(dq": '"', r"\(ga": "`", r"\e": "\\", r"\&": ""}


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Yield the words of every command and subcommand, and the command."""

    def walk(command: click.Command, words: str) -> Iterator[tuple[str, click.Command]]:
        yield words, command
        if isinstance(command, click.Group):
            for name in command.list_commands(None):  # type: ignore[arg-type]
                inner = command.get_command(None, name)  # type: ignore[arg-type]
                assert inner is not None
                yield from walk(inner, f"{words} {name}")

    yield from walk(cli, "emca-deploy")


def words_of(text: str) -> str:
    """Return the words and numbers of a text, each between blanks."""
    return f" {' '.join(re.findall(r'[A-Za-z0-9]+', text))} "


def in_page() -> tuple[str, set[str]]:
    """Return the text of the manual page without roff, and the options that it describes."""
    options = re.findall(r"\\-\\-[a-z\\-]+", "".join(re.findall(r"^\.B .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)))
    text = re.sub(r"^\.(?!S[SH] |B ).*\n", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = re.sub(r"^\.(?:S[SH]|B) |\\f[BIPR]", "", text, flags=re.MULTILINE)
    for code, plain in _UNESCAPED.items():
        text = text.replace(code, plain)
    return text, {option.replace("\\", "") for option in options}


def test_the_manual_page_is_up_to_date(pytestconfig: pytest.Config) -> None:
    """--regenerate-golden writes the page as well."""
    if pytestconfig.getoption("--regenerate-golden"):
        subprocess.run([sys.executable, ROOT / "scripts" / "generate_manual.py"], check=True)
    text, described = in_page()
    page = words_of(text)
    options = {name for _, command in every_command() for each in command.params for name in (*each.opts, *each.secondary_opts)}
    helps = [paragraph for _, command in every_command() for paragraph in (command.help or "").split("\n\n")]
    helps += [each.help or "" for _, command in every_command() for each in command.params if isinstance(each, click.Option)]
    assert [text for text in helps if words_of(text) not in page] == []
    assert described == {name for name in options if name.startswith("--")}


@pytest.mark.slow
def test_the_manual_page_is_that_of_its_script() -> None:
    code = "import sys; sys.path.insert(0, 'scripts'); from generate_manual import manual; print(manual(), end='')"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert words_of(made.partition(".TH ")[2]) == words_of(PAGE.read_text(encoding="utf-8").partition(".TH ")[2])


@pytest.mark.parametrize(
    "check",
    [["groff", "-man", "-Tutf8", "-ww", "-z", "-k"], ["mandoc", "-Tlint", "-Wwarning"], ["man", "--warnings", "-l"]],
    ids=lambda c: c[0],
)
def test_the_manual_page_has_no_warnings(check: list[str]) -> None:
    if shutil.which(check[0]) is None:
        pytest.skip(f"{check[0]} is not installed")
    done = subprocess.run([*check, str(PAGE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if check[0] == "mandoc":
        assert done.stdout == ""
