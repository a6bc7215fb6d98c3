"""Every console block and every Python block of README and docs runs, on the bundled sample."""

import re
import shutil
from contextlib import nullcontext
from importlib import import_module

import click
import pytest
from pages import PAGES, REASONS, ROOT, RUN, SHOWN, Shell, blocks, calls, commands, put_sample

import emca_deploy
from emca_deploy.cli import COMMANDS

BLOCKS = [block for page in PAGES for block in blocks(page)]
WITH_CODE = sorted({block.page for block in BLOCKS if block.language in RUN})
PYTHON = "docs/reference/python.md"
LONG = {"tune", "deploy", "report", "demo", "doctor"}


def test_every_block_says_what_it_is():
    """A block that is not run is marked as such; no code hides in another language or without a fence."""
    assert [str(block) for block in BLOCKS if block.language not in RUN + SHOWN] == []
    assert [str(block) for block in BLOCKS if block.language in SHOWN and "$ emca-deploy" in block.text] == []
    assert [str(block) for block in BLOCKS if block.language == "console" and not commands(block)] == []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert len(blocks(page)) == len(re.findall(r"^ *```", text, re.MULTILINE)) / 2, page
        assert not re.search(r"^(    |\t)\$? ?(sudo )?emca-deploy ", re.sub(r"(?s)```.*?```", "", text), re.MULTILINE), page


def test_blocks_that_are_not_run(golden):
    """Blocks that are not run are few, each with a known reason; a golden list reveals an added one."""
    left_out = [block for block in BLOCKS if block.language in RUN and block.not_run]
    assert {block.not_run for block in left_out} <= set(REASONS)
    golden("docs/not_run", [f"{block.page}: {block.text.splitlines()[0]} ({block.not_run})" for block in left_out])


@pytest.mark.parametrize("page", WITH_CODE)
def test_commands_have_the_options_that_a_page_gives_them(page):
    """Check the commands, options, arguments and choices of all blocks, including those that need a board or a GPU."""
    for block in blocks(page):
        for name, *words in calls(block) if block.language == "console" else ():
            if not name.startswith("-"):
                assert name in COMMANDS, f"{block}: {name}"
                _parse(import_module(f"emca_deploy.commands.{name.replace('-', '_')}").command, words, str(block))


@pytest.mark.parametrize("words", [["--no-such-option"], ["--backend"], ["--scenario", "sometimes"]])
def test_a_wrong_option_is_found(words):
    with pytest.raises(pytest.fail.Exception):
        _parse(import_module("emca_deploy.commands.profile").command, ["model.onnx", *words], "a page")


PAGE = """
```console
$ sudo emca-deploy profile a.onnx \\
    --target jetson && emca-deploy doctor > out  # a comment
printed
```
<!-- exit code 4 -->
```console
$ exit 3
```
<!-- not run: needs a Jetson -->
```python
ed.profile(request)
```
"""


def test_blocks_are_read_with_their_marks(tmp_path):
    first, second, third = blocks("page.md", PAGE)
    assert calls(first) == [["profile", "a.onnx", "--target", "jetson"], ["doctor"]]
    assert (first.line, first.operations, first.runs) == (2, {"profile", "doctor"}, True)
    assert (second.exit_code, third.not_run, third.runs, third.operations) == (4, "needs a Jetson", False, {"profile"})
    with pytest.raises(AssertionError):
        Shell(tmp_path).run(second)


def _parse(command, words, where):
    context = click.Context(command, info_name=command.name)
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"{where}: {words[0]}"
        _parse(found, words[1:], where)
        return
    try:
        values, rest, _ = command.make_parser(context).parse_args(list(words))
        assert not rest, rest
        for parameter in command.params:
            given = values.get(parameter.name)
            for value in given if isinstance(given, (list, tuple)) else [given]:
                if isinstance(parameter.type, click.Choice) and isinstance(value, str):
                    parameter.type.convert(value, parameter, context)
    except click.ClickException as error:
        pytest.fail(f"{where}: {command.name} {' '.join(words)}: {error.format_message()}")


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", str(tmp_path / ".devices.toml"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    return Shell(tmp_path)


@pytest.fixture
def sample(tmp_path, once, bundled_model):
    put_sample(tmp_path, once, bundled_model)


@pytest.mark.slow  # every command runs in its own process, including calibration and measurements
@pytest.mark.parametrize("page", [page for page in WITH_CODE if page != PYTHON])
def test_a_page_runs(page, shell, sample):
    for block in blocks(page):
        if block.runs:
            shell.run(block)


@pytest.fixture
def python_shell(shell, small_checkpoint, labelled_images):
    """A folder with the files that the Python page names: a small network and a few images."""
    shutil.copy(small_checkpoint, shell.folder / "checkpoint.pth")
    (shell.folder / "calibration").symlink_to(labelled_images)
    shutil.copytree(labelled_images, shell.folder / "validation")
    return shell


def _run_python(shell, small_networks, capsys, wanted):
    for block in blocks(PYTHON):
        with nullcontext() if "demo" in block.operations else small_networks():
            if wanted(block):
                shell.run(block)
                assert capsys.readouterr().out.strip() or not block.operations, block


@pytest.mark.usefixtures("kept_exports", "in_threads")
def test_the_python_page_runs(python_shell, small_networks, capsys):
    _run_python(python_shell, small_networks, capsys, lambda block: not block.operations & LONG)


@pytest.mark.slow  # a search, a deployment, the demo, and one load of every library
def test_the_long_examples_of_the_python_page_run(python_shell, small_networks, capsys):
    wanted = LONG | {"export"}
    _run_python(python_shell, small_networks, capsys, lambda block: not block.operations or block.operations & wanted)


def test_every_operation_has_an_example():
    operations = {place.removeprefix("api.") for place in emca_deploy._PLACES if place.startswith("api.")} - {"images"}
    text = (ROOT / PYTHON).read_text(encoding="utf-8")
    assert set(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == operations
    used = set().union(*(block.operations for block in blocks(PYTHON)))
    assert operations <= used


def _quick(block):
    return block.runs and block.language == "console" and block.operations and block.operations <= {"plan", "devices"}


QUICK_PAGES = [page for page in WITH_CODE if any(map(_quick, blocks(page)))]
FIRST = min(QUICK_PAGES, key=lambda page: sum(map(_quick, blocks(page))))


@pytest.mark.parametrize("page", [pytest.param(page, marks=() if page == FIRST else pytest.mark.slow) for page in QUICK_PAGES])
def test_the_quick_commands_of_a_page_run(page, shell, sample):
    """These commands need no file from other ones; the default run thus starts the command line as a reader of one page does."""
    for block in blocks(page):
        if _quick(block):
            shell.run(block)
