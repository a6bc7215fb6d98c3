"""Shells complete commands, options, values and files; completing loads no heavy library and is fast."""

import os
import shutil
import subprocess
import sys

import click
import pytest
from terminal import Terminal

from emca_deploy.cli import cli, run

HEAVY = ("torch", "openvino", "onnxruntime", "onnx", "numpy", "PIL", "jinja2", "rich")
LIMIT_S = 0.4


@pytest.fixture
def machines(tmp_path, monkeypatch):
    file = tmp_path / "devices.toml"
    file.write_text('[orin]\ntarget = "ssh://me@orin"\n')
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", str(file))


def completed(*words):
    """Return (type, value) of what the last word can be completed to."""
    from click.shell_completion import ShellComplete

    *before, incomplete = words
    complete = ShellComplete(cli, {}, "emca-deploy", "_EMCA_DEPLOY_COMPLETE")
    return [(item.type, item.value) for item in complete.get_completions(list(before), incomplete)]


@pytest.mark.usefixtures("machines")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pro"], ["profile"]),
        (["unknown", "pro"], ["profile"]),
        (["history", "s"], ["show"]),
        (["--q"], ["--quiet"]),
        (["profile", "--scen"], ["--scenario"]),
        (["profile", "--scenario", "off"], ["offline"]),
        (["profile", "--backend", "openv"], ["openvino"]),
        (["calibrate", "--backend", "openv"], ["openvino"]),
        (["calibrate", "--method", "m"], ["minmax", "moving-average", "mse"]),
        (["calibrate", "--placement", "mea"], ["measured"]),
        (["export", "--arch", "emca_eca_resnet5"], ["emca_eca_resnet50"]),
        (["plan", "--device", "orin-nx"], ["orin-nx"]),
        (["profile", "--target", "or"], ["orin"]),
        (["deploy", "--targets", "cpu,or"], ["cpu,orin"]),
        (["build", "--target", "je"], ["jetson"]),
        (["devices", "check", ""], ["orin"]),
        (["history", "show", "p99"], ["p99", "p99.9"]),
        (["completion", "z"], ["zsh"]),
        (["profile", "--batch", "none", "--scenario", "off"], ["offline"]),
    ],
    ids=" ".join,
)
def test_values(words, expected):
    assert completed(*words) == [("plain", value) for value in expected]


@pytest.mark.parametrize("words", [["profile", "mod"], ["validate", "mod"], ["build", "mod"], ["gate", "re"], ["tune", "m"]])
def test_files(words):
    assert completed(*words) == [("file", words[-1])]


def test_every_argument_is_completed():
    """An argument without a completion would offer nothing, not even files."""

    def walk(command, words):
        if isinstance(command, click.Group):
            for name in command.list_commands(None):
                yield from walk(command.get_command(None, name), (*words, name))
        for parameter in command.params:
            if isinstance(parameter, click.Argument):
                yield (*words, parameter.name), parameter

    free = {("devices", "add", "name"), ("devices", "add", "target")}
    plain = {words for words, p in walk(cli, ()) if p._custom_shell_complete is None and type(p.type) is type(click.STRING)}
    assert plain <= free


@pytest.mark.usefixtures("machines")
@pytest.mark.parametrize(
    "words", [["profile", ""], ["profile", "--target", ""], ["export", "--arch", ""], ["calibrate", "--backend", ""], [""]]
)
def test_completing_is_fast_and_loads_nothing_heavy(words):
    code = (
        "import sys, time; from emca_deploy.cli import run; code = run([])\n"
        f"print(code, [m for m in {HEAVY!r} if m in sys.modules], time.process_time() < {LIMIT_S}, file=sys.stderr)"
    )
    asked = {"_EMCA_DEPLOY_COMPLETE": "bash_complete", "COMP_WORDS": f"emca-deploy {' '.join(words)}"}
    asked["COMP_CWORD"] = str(len(words))
    found = ""
    for _ in range(3):  # other load must not fail this test
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **asked}
        )
        found = done.stderr
        assert done.stdout
        if "True" in found:
            break
    assert found == "0 [] True\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(shell, capsys):
    assert run(["completion", shell]) == 0
    assert f"_EMCA_DEPLOY_COMPLETE={shell}_complete" in capsys.readouterr().out


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Put an `emca-deploy` of this checkout on PATH."""
    command = tmp_path / "bin" / "emca-deploy"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m emca_deploy "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").touch()


@pytest.mark.usefixtures("installed")
def test_bash(tmp_path):
    (tmp_path / ".bashrc").write_text('eval "$(emca-deploy completion bash)"\nPS1=READY\n')
    _type_in(["bash", "--rcfile", ".bashrc", "-i"])


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_zsh(tmp_path, monkeypatch):
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    (tmp_path / ".zshrc").write_text('autoload -U compinit; compinit -u -D\neval "$(emca-deploy completion zsh)"\nPS1=READY\n')
    monkeypatch.setenv("ZDOTDIR", str(tmp_path))
    _type_in(["zsh", "-d", "-i"])


def _type_in(shell):
    with Terminal(shell, {"TERM": "xterm"}) as terminal:
        terminal.wait_for("READY")
        for typed, whole in (("emca-deploy pr", "ofile "), ("--scenario off", "line "), ("mod", "el.onnx ")):
            terminal.send(typed)
            terminal.wait_for(typed)
            terminal.send("\t")
            terminal.wait_for(typed + whole)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_fish():
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    program = "emca-deploy completion fish | source; complete -C 'emca-deploy prof'; complete -C 'emca-deploy profile mod'"
    done = subprocess.run(["fish", "--no-config", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["profile", "model.onnx"]
