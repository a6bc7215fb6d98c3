"""`import emca_deploy`: every public name exists, is typed, and is imported only when it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import emca_deploy

OPERATIONS = (
    "export", "calibrate", "build", "profile", "validate", "layers", "tune", "sensitivity", "compare", "plan", "deploy", "demo",
    "sweep", "report", "devices", "models", "doctor", "gate", "history",
)  # fmt: skip


def typed_names():
    """The names that a type checker sees, with their modules."""
    tree = ast.parse(Path(emca_deploy.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {(name.name, node.module) for node in block.body for name in node.names}


def test_every_name_is_listed_typed_and_found():
    placed = {(name, f"emca_deploy.{place}") for place, names in emca_deploy._PLACES.items() for name in names}
    assert typed_names() == placed
    assert {name for name, _ in placed} | {"__version__"} == set(emca_deploy.__all__) <= set(dir(emca_deploy))


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_functions(name):
    function = getattr(emca_deploy, name)
    assert function.__module__ == f"emca_deploy.api.{name}"
    assert function.__doc__
    assert getattr(emca_deploy, name) is function


def test_operations_stay_functions_when_the_rooms_are_imported():
    code = "import emca_deploy, emca_deploy.cli, emca_deploy.exporting.checkpoint, emca_deploy.reporting.html\n"
    code += f"assert all(callable(getattr(emca_deploy, name)) for name in {OPERATIONS!r})"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError):
        _ = emca_deploy.nothing


def test_commands_only_translate():
    folder = Path(emca_deploy.__file__).parent / "commands"
    assert [path.name for path in folder.glob("*.py") if len(path.read_text(encoding="utf-8").splitlines()) > 100] == []
