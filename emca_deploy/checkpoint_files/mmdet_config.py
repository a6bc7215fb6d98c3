"""Reads the configuration text in a checkpoint of mmdetection as data: it is parsed, and nothing in it is run.

The text is Python: mmcv and mmengine run it to read it. Here a small part of the language becomes values, as far as
configurations have it: literals, `dict(...)`, earlier names, `**` and arithmetic. All else becomes `Unread`.
"""

import ast
import re
from dataclasses import dataclass
from typing import Any

__all__ = ["Unread", "read_config"]

MAX_CHARACTERS = 2 << 20
MAX_STEPS = 500_000
MAX_ITEMS = 10_000
MAX_NUMBER = 1e15
DELETE = "_delete_"
"""Key of a dictionary that replaces the one of an earlier file, instead of being merged into it."""

_FILE = re.compile(r"^[\w./\\:~-]+\.py[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Unread:
    """A value that is not plain data, such as a function's result."""

    text: str


def read_config(text: str) -> dict[str, Any] | None:
    """Return the top-level names of a configuration with their values; None where the text is not Python.

    A value is None, a bool, a number, a string, or a list, tuple or dictionary of values; `Unread` where it is something else.
    A text that joins several files, each below a line with its path, is merged as mmcv merges a file into its bases.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    reader = _Reader()
    merged: dict[str, Any] = {}
    for part in _FILE.split(text):
        try:
            tree = ast.parse(part)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return None
        try:
            merged = reader.merge(merged, reader.module(tree))
        except (RecursionError, _TooLongError):
            return None
    return merged


class _TooLongError(Exception):
    """The text has more values than any configuration."""


class _Reader:
    """Turns statements into values; names that a statement assigns are known to those after it."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.names: dict[str, Any] = {}

    def module(self, tree: ast.Module) -> dict[str, Any]:
        """Return the names that the statements of a module assign."""
        own: dict[str, Any] = {}
        for statement in tree.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if isinstance(statement, ast.AnnAssign) and statement.value is not None:
                targets = [statement.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    own[target.id] = self.names[target.id] = self.value(statement.value)  # type: ignore[attr-defined]
        return own

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise _TooLongError

    def merge(self, base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
        """Return `base` with the values of `own`; dictionaries in both are merged."""
        merged = dict(base)
        for name, value in own.items():
            self.step()
            earlier = merged.get(name)
            if isinstance(value, dict) and value.get(DELETE):
                merged[name] = {key: item for key, item in value.items() if key != DELETE}
            elif isinstance(value, dict) and isinstance(earlier, dict):
                merged[name] = self.merge(earlier, value)
            else:
                merged[name] = value
        return merged

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression, or `Unread`."""
        self.step()
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str | int | float | bool | None) else self.unread(node)
        if isinstance(node, ast.Name):
            return self.names.get(node.id, self.unread(node))
        if isinstance(node, ast.UnaryOp | ast.BinOp):
            return self.arithmetic(node)
        return self.container(node)

    def container(self, node: ast.expr) -> Any:
        """Return a list, a tuple or a dictionary, which `dict(...)` can be too."""
        if isinstance(node, ast.List):
            return self.items(node)
        if isinstance(node, ast.Tuple):
            return tuple(self.items(node))
        if isinstance(node, ast.Dict):
            return self.mapping(zip(node.keys, node.values, strict=True))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
            return self.mapping((ast.Constant(word.arg) if word.arg else None, word.value) for word in node.keywords)
        return self.unread(node)

    def unread(self, node: ast.expr) -> Unread:
        text = ast.unparse(node) if not isinstance(node, ast.Constant) else repr(node.value)
        return Unread(text[:80])

    def items(self, node: ast.List | ast.Tuple) -> list[Any]:
        found: list[Any] = []
        for item in node.elts:
            inner = self.value(item.value if isinstance(item, ast.Starred) else item)
            if isinstance(item, ast.Starred) and isinstance(inner, list | tuple):
                found += inner
            else:
                found.append(inner)
        return found

    def mapping(self, pairs: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in pairs:
            inner = self.value(item)
            if key is None:  # ** of a dictionary
                found |= inner if isinstance(inner, dict) else {f"**{len(found)}": inner}
            else:
                found[str(self.value(key))] = inner
        return found

    def arithmetic(self, node: ast.UnaryOp | ast.BinOp) -> Any:
        """Return a number, or a string or list joined from two; lists and strings stay short."""
        if isinstance(node, ast.UnaryOp):
            operand = self.value(node.operand)
            negative = isinstance(node.op, ast.USub) and _is_number(operand)
            return -operand if negative else self.unread(node)
        left, right = self.value(node.left), self.value(node.right)
        if _is_number(left) and _is_number(right):
            return self.number(node, left, right)
        joined = isinstance(node.op, ast.Add) and type(left) is type(right) and isinstance(left, str | list | tuple)
        if joined and len(left) + len(right) <= MAX_ITEMS:
            return left + right
        repeated = isinstance(node.op, ast.Mult) and isinstance(left, list | tuple) and isinstance(right, int)
        if repeated and len(left) * max(right, 0) <= MAX_ITEMS:
            return left * right
        return self.unread(node)

    def number(self, node: ast.BinOp, left: float, right: float) -> Any:
        if max(abs(left), abs(right)) > MAX_NUMBER:
            return self.unread(node)
        if isinstance(node.op, ast.Div | ast.FloorDiv) and right:
            return left / right if isinstance(node.op, ast.Div) else left // right
        if isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
            return {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}[type(node.op)]
        return self.unread(node)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
