"""The agent's file contains everything it imports, needs only numpy, and leaves out what only the local machine needs."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from emca_deploy.remote.package import LEFT_OUT, agent_bytes

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "emca_deploy"

IMPORT_ALL = """
import importlib, json, sys, zipfile
archive, packages = sys.argv[1:]
sys.path[:0] = [archive, packages]
missing = {}
for name in sorted(zipfile.ZipFile(archive).namelist()):
    module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing[module] = error.name
print(json.dumps(missing))
"""


def test_every_module_of_it_imports_where_there_is_only_numpy(tmp_path: Path) -> None:
    import numpy

    packages = tmp_path / "packages"
    packages.mkdir()
    folder = Path(numpy.__file__).parent
    for path in (folder, folder.with_name("numpy.libs")):
        if path.exists():
            (packages / path.name).symlink_to(path)
    (tmp_path / "agent.zip").write_bytes(agent_bytes())
    command = [sys.executable, "-ISc", IMPORT_ALL, str(tmp_path / "agent.zip"), str(packages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    missing: dict[str, str] = json.loads(done.stdout)
    # A network is a torch module, imported after torch has been found.
    assert {module for module, name in missing.items() if (module.split(".")[1], name) != ("networks", "torch")} == set()


def contract() -> dict[str, list[str]]:
    tomllib = pytest.importorskip("tomllib")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    found: dict[str, list[str]] = next(one for one in contracts if one["name"].startswith("What the agent ships"))
    return found


def test_the_contract_is_of_what_is_sent_and_what_is_left_out() -> None:
    """`make check` verifies that no sent module imports a module left out; every new room must be in one of the two lists."""
    rooms = [name for name in LEFT_OUT if "*" not in name]
    left_out = {name.removesuffix(".py").replace("/", ".") for name in rooms if (PACKAGE / name).suffix or "/" not in name}
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()} - {"__init__"}
    assert set(contract()["forbidden_modules"]) == {f"emca_deploy.{name}" for name in left_out}
    assert set(contract()["source_modules"]) == {f"emca_deploy.{name}" for name in modules - left_out}


def test_it_is_the_same_every_time_and_has_no_data() -> None:
    agent_bytes.cache_clear()
    first = agent_bytes()
    agent_bytes.cache_clear()
    assert agent_bytes() == first
    names = zipfile.ZipFile(io.BytesIO(first)).namelist()
    assert "emca_deploy/targets/agent/main.py" in names
    assert all(name.endswith(".py") for name in names)
    assert not [name for name in names if name.startswith(("emca_deploy/calibration/", "emca_deploy/commands/"))]
