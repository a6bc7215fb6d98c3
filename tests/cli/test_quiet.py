"""What is printed with `--quiet`, without colours and in terminals of all kinds; help fits 80 columns."""

import json
import os
import re
import sys

import click
import pytest
from terminal import Terminal

from emca_deploy.cli import cli, run

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*[34][0-9](?:;[0-9;]*)?m")
QUICK = ["--duration", "0.2", "--max-duration", "0.2", "--warmup", "0", "--threads", "1", "--no-telemetry"]


def every_command():
    """Yield the words of every command and subcommand."""

    def walk(command, words):
        yield words
        if isinstance(command, click.Group):
            for name in command.list_commands(None):
                yield from walk(command.get_command(None, name), (*words, name))

    yield from walk(cli, ())


def in_terminal(arguments, **environment):
    """Return what Python prints in a real terminal, with its escape sequences."""
    plain = dict.fromkeys(("NO_COLOR", "FORCE_COLOR", "CI"))
    whole = {**plain, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm-256color", **environment}
    with Terminal([sys.executable, *arguments], whole) as terminal:
        return terminal.finish()


def drawing(words):
    """Return a program that moves every kind of progress bar, inside a command line that is quiet or not."""
    return (
        "import time, click\n"
        "from emca_deploy.commands._console import tell, remark, table_console\n"
        "from emca_deploy.commands._progress_bars import cells, progress, stages\n"
        "from emca_deploy.cli import cli\n"
        "with cli.make_context('emca-deploy', " + repr(words) + ", resilient_parsing=True) as context:\n"
        "    with progress('measuring', 'images') as advance:\n"
        "        advance(1, 2); time.sleep(0.15)\n"
        "    with stages() as stage, stage('exporting') as advance:\n"
        "        advance(1, 2); time.sleep(0.15)\n"
        "    with cells() as (stage, finished):\n"
        "        with stage('calibrating') as advance:\n"
        "            advance(1, 2); time.sleep(0.15)\n"
        "        finished('cell 7', 1, 2)\n"
        "    tell(notes=['a note'], warnings=['a warning'])\n"
        "    remark('a remark')\n"
        "    table_console().print('[red]result[/red]')\n"
    )


def drawn(*words, **environment):
    return in_terminal(["-c", drawing(list(words))], **environment)


def test_a_terminal_shows_progress_and_colours():
    shown = drawn()
    expected = ("measuring", "exporting", "calibrating", "cell 7", "a note", "a remark")
    assert [text for text in expected if text not in shown] == []
    assert COLOUR.search(shown)


def test_quiet_leaves_warnings_and_results():
    shown = CONTROL.sub("", drawn("--quiet")).split("\r\n")
    assert shown == ["warning: a warning", "result", ""]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}], ids=["alone", "forced"])
def test_no_color_removes_every_colour(environment):
    shown = drawn(**environment)
    assert "measuring" in shown
    assert COLOUR.findall(shown) == []


def test_a_dumb_terminal_gets_text_only():
    shown = drawn(TERM="dumb")
    assert CONTROL.findall(shown) == []
    assert [line for line in shown.split("\r\n") if line and not line.startswith("  exporting:")] == [
        "  1/2 cell 7",
        "note: a note",
        "warning: a warning",
        "a remark",
        "result",
    ]


def test_forced_colour_in_a_pipe_draws_no_bars(monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    exec(drawing([]), {})
    out, err = capfd.readouterr()
    assert "measuring" not in err
    assert "\x1b[31mresult" in out


def test_quiet_before_a_command(model, tmp_path, capfd):
    result = tmp_path / "result.json"
    assert run(["--quiet", "profile", str(model), *QUICK, "--json", "-o", str(result)]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == json.loads(result.read_text())
    assert [line for line in err.splitlines() if not line.startswith("warning: ")] == []
    assert run(["-q", "history", "add", str(result), "--store", str(tmp_path / "history.db")]) == 0
    assert capfd.readouterr() == ("", "")


def test_errors_remain(tmp_path, refused):
    assert "missing.onnx" in refused("--quiet", "profile", str(tmp_path / "missing.onnx"))


def test_quiet_after_a_command_says_where_it_goes(refused):
    assert "emca-deploy --quiet profile" in refused("profile", "model.onnx", "--quiet")


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_help_fits_80_columns_and_has_no_colours(words, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run([*words, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80 or "\x1b" in line] == []


def test_help_in_a_terminal_has_no_colours():
    assert "\x1b" not in in_terminal(["-m", "emca_deploy", "gate", "--help"])
