"""The command line itself: finding commands, and two lines for every error."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from emca_deploy.cli import COMMANDS, cli, run
from emca_deploy.errors import InputError


@pytest.mark.parametrize(
    ("arguments", "said", "remedy"),
    [
        (["exprot"], "no command is called 'exprot'", "nearest: export"),
        (["--bogus"], "'--bogus'", "emca-deploy --help"),
        (["export"], "'-o'", "emca-deploy export --help"),
        (["export", "-o", "x.onnx", "--bogus"], "'--bogus'", "emca-deploy export --help"),
        (["export", "-o", "x.onnx", "--opset", "17"], "17 is not in the range", "emca-deploy export --help"),
        (["export", "-o", "x.onnx", "--num-classes", "many"], "'many'", "emca-deploy export --help"),
        (["profile", "x.onnx", "--duration", "5d"], "--duration 5d", "20m"),
        (["profile", "x.onnx", "--duration", "50ms"], "0.05 is not in the range", "emca-deploy profile --help"),
        (["calibrate", "x.onnx", "-o", "y.onnx"], "'--data'", "emca-deploy calibrate --help"),
        (["deploy", "a", "b", "--data", "d", "--val", "v", "-o", "o"], "(b)", "emca-deploy deploy --help"),
    ],
)
def test_a_wrong_command_line_is_two_lines_and_exit_2(arguments, said, remedy, capsys):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.startswith("error: ")
    assert said in first
    assert second.startswith("  try: ")
    assert remedy in second
    assert out == ""


def test_no_command_at_all_is_the_help_and_exit_2(capsys):
    assert run([]) == 2
    shown = "".join(capsys.readouterr())
    assert "emca-deploy demo -o demo" in shown
    assert "error:" not in shown


def test_every_help_is_there_and_loads_nothing_heavy():
    code = (
        "import sys; from emca_deploy.cli import COMMANDS, run; codes = [run([c, '--help']) for c in COMMANDS]; "
        "heavy = {'torch', 'onnx', 'onnx_ir', 'onnxruntime', 'openvino', 'numpy', 'PIL', 'jinja2'} & set(sys.modules); "
        "raise SystemExit(f'{codes} {heavy}' if heavy or any(codes) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name in COMMANDS:
        assert f"Usage: emca-deploy {name}" in done.stdout


def test_every_command_is_a_module_and_every_module_is_a_command():
    from emca_deploy import commands

    modules = {path.stem.replace("_", "-") for path in Path(commands.__file__).parent.glob("[!_]*.py")}
    assert modules == set(COMMANDS)
    context = click.Context(cli)
    assert {cli.get_command(context, name).name for name in COMMANDS} == set(COMMANDS)


def test_a_message_of_several_lines_is_said_in_one(monkeypatch, capsys):
    def fail(*_args, **_kwargs):
        raise InputError("model.onnx: wrong\n  at line 3", "do this\nthen that")

    monkeypatch.setattr(cli, "main", fail)
    assert run([]) == 2
    assert capsys.readouterr().err == "error: model.onnx: wrong at line 3\n  try: do this then that\n"


def test_a_defect_of_ours_keeps_its_traceback_and_exits_1():
    code = "from emca_deploy import cli; cli.cli.main = lambda *a, **k: 1 / 0; cli.main([])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_ctrl_c_while_our_own_modules_are_imported_is_one_line(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")  # like Ctrl-C during this import
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "emca_deploy", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted: nothing was started\n")


def test_a_closed_pipe_is_not_an_error():
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "emca_deploy", "doctor", "--json"]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_version(capsys):
    from emca_deploy._version import __version__

    assert run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_an_interrupt_whose_cleaning_up_fails_is_an_interrupt(monkeypatch, capsys):
    def history(*_):
        try:
            raise KeyboardInterrupt
        finally:
            raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr("emca_deploy.api.history.history", history)
    assert run(["history", "show", "p50"]) == 130
    assert "Bad file" not in capsys.readouterr().err
