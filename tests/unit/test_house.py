"""The structure of the package: no import cycles, rooms of limited size, short commands."""

import ast
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "emca_deploy"
MOST_IN_A_ROOM = 4500
MOST_IN_A_COMMAND = 100


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & MODULES.keys()) - {name_of(path)}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one module (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.append(sorted(component))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def test_cycles_are_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_import_cycles():
    assert cycles({name: imports_of(path) for name, path in MODULES.items()}) == []


def rooms() -> dict[str, int]:
    """Return the lines of each room: a folder that is a layer in import-linter, and folders of backends, api and reporting."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    names = {name.strip() for layer in layers for name in layer.replace("|", ":").split(":")}
    names |= {
        name_of(path.parent) for room in ("backends", "api", "reporting") for path in (PACKAGE / room).glob("*/__init__.py")
    }
    found = dict.fromkeys(names, 0)
    for module, path in MODULES.items():
        inside = [name for name in names if module == name or module.startswith(f"{name}.")]
        if inside:
            found[max(inside, key=len)] += len(path.read_text(encoding="utf-8").splitlines())
    return found


def test_no_room_is_too_large():
    assert {name: lines for name, lines in rooms().items() if lines > MOST_IN_A_ROOM} == {}


def test_every_module_is_in_a_room():
    names = rooms()
    outside = {
        name
        for name, path in MODULES.items()
        if path.name != "__init__.py" and not any(name == room or name.startswith(f"{room}.") for room in names)
    }
    assert outside <= {"emca_deploy.__main__", "emca_deploy._version"}


def test_no_command_is_long():
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (PACKAGE / "commands").glob("*.py")}
    assert {name: count for name, count in lines.items() if count > MOST_IN_A_COMMAND} == {}


def test_no_module_only_re_exports():
    for name, path in MODULES.items():
        body = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if not isinstance(node, ast.Expr)]
        only = body and all(
            isinstance(node, ast.Import | ast.ImportFrom)
            or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__")
            for node in body
        )
        assert not only or name in {"emca_deploy.api"}, name
