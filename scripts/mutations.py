"""Break randomly drawn lines of the package one at a time, and record which test of the default run fails.

    python scripts/mutations.py --seed 1 --lines 40 --output benchmarks/results/mutations-1.json

Each mutation is applied to a copy of the checkout. Tests run from the nearest to the farthest and stop at the first failure:
the folder that mirrors the room, files that name the module, the whole default run. An unnoticed mutation costs a whole run.
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Mutation", "draw", "mutations_of"]

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("calibration", "harness", "backends", "data", "targets")
# No test can see `<` in place of `<=` between measured floats, so a comparison is reversed.
COMPARISONS = {
    ast.Lt: ">",
    ast.LtE: ">",
    ast.Gt: "<",
    ast.GtE: "<",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
# Flags whose other value has no effect that a test can see.
UNSEEN_FLAGS = {
    "strict",
    "daemon",
    "frozen",
    "kw_only",
    "slots",
    "exist_ok",
    "missing_ok",
    "check",
    "text",
    "capture_output",
    "flush",
}
OPERATORS = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
    ast.MatMult: "+",
}
SWAPPED = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "floor": "ceil",
    "ceil": "floor",
    "minimum": "maximum",
    "maximum": "minimum",
    "sorted": "list",
}
TIMEOUT_S = 1500.0


@dataclass(frozen=True)
class Mutation:
    """One changed expression: `before` becomes `after` in line `line` of `file`, a path below the root."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int
    before: str
    after: str


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _replacement(node: ast.AST, source: str) -> tuple[ast.AST, str] | None:  # noqa: C901  (a table with a row a kind of node)
    """The node to replace and its new text, or None for a node that is not mutated."""

    def text(part: ast.AST) -> str:
        return f"({ast.get_source_segment(source, part)})"

    changed: str | None = None
    match node:
        case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in COMPARISONS:
            changed = f"{text(left)} {COMPARISONS[type(sign)]} {text(right)}"
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS and not (_is_text(left) or _is_text(right)):
            changed = f"({text(left)} {OPERATORS[type(sign)]} {text(right)})"
        case ast.BoolOp(op=sign, values=values):
            changed = "(" + (" or " if isinstance(sign, ast.And) else " and ").join(map(text, values)) + ")"
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            changed = text(operand)
        case ast.Constant(value=bool(value)):
            changed = str(not value)
        case ast.Constant(value=int(value) | float(value)):
            changed = repr(value * 2 if isinstance(value, float) or abs(value) >= 10 else value + 1)  # wrong scale or off by one
        case ast.Name(id=name) if name in SWAPPED:
            changed = SWAPPED[name]
        case ast.Attribute(value=value, attr=name) if name in SWAPPED:
            changed = f"{text(value)}.{SWAPPED[name]}"
        case ast.Expr(value=ast.Call()):
            changed = "pass"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            changed = f"({text(orelse)} if {text(test)} else {text(body)})"
    return None if changed is None else (node, changed)


def _skipped(tree: ast.Module) -> set[ast.AST]:
    """Nodes that are not mutated: annotations, messages, errors, imports."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if part is not None:
                skipped.update(ast.walk(part))
        if isinstance(node, ast.JoinedStr | ast.Raise | ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.keyword) and node.arg in UNSEEN_FLAGS
        ):
            skipped.update(ast.walk(node))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            skipped.update(ast.walk(node))
    return skipped


def mutations_of(path: Path) -> Iterator[Mutation]:
    """Every mutation of one file, in the order of its lines; `path` is absolute."""
    source = path.read_text()
    tree = ast.parse(source)
    skipped = _skipped(tree)
    for node in ast.walk(tree):
        if node in skipped or (found := _replacement(node, source)) is None:
            continue
        target, after = found
        before = ast.get_source_segment(source, target)
        if before is None or before == after:
            continue
        yield Mutation(
            str(path.relative_to(ROOT)), target.lineno, target.col_offset, target.end_lineno, target.end_col_offset, before, after
        )  # type: ignore[attr-defined]


def draw(rooms: tuple[str, ...], lines: int, seed: int) -> list[Mutation]:
    """Draw `lines` mutations in different lines; a room's share is that of its lines that can be mutated."""
    random_ = random.Random(seed)
    by_line: dict[tuple[str, int], list[Mutation]] = {}
    for room in rooms:
        for path in sorted((ROOT / "emca_deploy" / room).rglob("*.py")):
            for mutation in mutations_of(path):
                by_line.setdefault((mutation.file, mutation.line), []).append(mutation)
    return [random_.choice(by_line[key]) for key in random_.sample(sorted(by_line), lines)]


def _apply(mutation: Mutation, folder: Path) -> None:
    path = folder / mutation.file
    lines = path.read_bytes().splitlines(keepends=True)
    first, last = lines[mutation.line - 1], lines[mutation.end_line - 1]
    changed = first[: mutation.column] + mutation.after.encode() + last[mutation.end_column :]
    lines[mutation.line - 1 : mutation.end_line] = [changed]
    path.write_bytes(b"".join(lines))
    ast.parse(path.read_text())


def _stages(file: str, *, near_only: bool) -> list[list[str]]:
    """Test paths from the nearest to the whole default run."""
    parts = Path(file).parts[1:]
    mirrored = next(
        (
            folder
            for depth in range(len(parts) - 1, 0, -1)
            if (ROOT / (folder := f"tests/unit/{'/'.join(parts[:depth])}")).is_dir()
        ),
        None,
    )
    module = ".".join(Path(file).with_suffix("").parts)
    names = [module, module.rsplit(".", 1)[0] + f" import {Path(file).stem}"]
    naming = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if any(name in path.read_text() for name in names)
    ]
    near = ([mirrored] if mirrored else []) + [name for name in naming if not (mirrored and name.startswith(mirrored))]
    return ([near] if near else []) + ([] if near_only else [["tests"]])


def _seen_by(folder: Path, file: str, processes: int, *, near_only: bool) -> str | None:
    """Name of the first test that fails in `folder`, or None."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    for paths in _stages(file, near_only=near_only):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "--numprocesses",
            str(processes),
            "--dist",
            "worksteal",
            *paths,
        ]
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no end within {TIMEOUT_S:.0f} s: {' '.join(paths)}"
        if done.returncode not in (0, 5):
            failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            return failed[1] if failed else f"pytest exit {done.returncode}: {' '.join(paths)}"
    return None


def main() -> None:
    """Draw, apply and test mutations, and write the record after each one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True, help="seed of the draw")
    parser.add_argument("--lines", type=int, default=40, help="number of mutations")
    parser.add_argument("--processes", type=int, default=2, help="test processes")
    parser.add_argument("--only", type=int, nargs="*", default=[], help="run these numbers of the draw only")
    parser.add_argument("--near", action="store_true", help="run the nearest tests only, not the whole default run")
    parser.add_argument("--list", action="store_true", help="print the mutations and run nothing")
    parser.add_argument("--output", type=Path, help="JSON record")
    options = parser.parse_args()
    drawn = draw(ROOMS, options.lines, options.seed)
    records: list[dict[str, object]] = []
    for number, mutation in enumerate(drawn, 1):
        if options.only and number not in options.only:
            continue
        print(f"{number:3} {mutation.file}:{mutation.line}  {mutation.before[:60]!r} -> {mutation.after[:60]!r}", flush=True)
        if options.list:
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="emca-mutation-") as temporary:
            folder = Path(temporary) / "checkout"
            shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", "demo"))
            _apply(mutation, folder)
            seen = _seen_by(folder, mutation.file, options.processes, near_only=options.near)
        print(f"    {'SEEN by ' + seen if seen else 'NOT SEEN'} ({time.monotonic() - started:.0f} s)", flush=True)
        records.append({"number": number, **asdict(mutation), "seen_by": seen})
        if options.output:
            options.output.write_text(json.dumps({"seed": options.seed, "rooms": ROOMS, "mutations": records}, indent=2) + "\n")


if __name__ == "__main__":
    main()
