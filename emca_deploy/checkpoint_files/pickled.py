"""Reads a pickle into plain values and inert stubs: no class or function that it names is looked up, and nothing is called.

Python's own unpickler imports what a pickle names and trusts the sizes in it; this one does neither. `pickletools` splits the
pickle into instructions and runs none of them.
"""

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from emca_deploy.checkpoint_files.pickle_values import Global, PickleError, Stub, TruncatedPickleError, item_key, make

__all__ = ["Budget", "read_pickle"]

MAX_STEPS = 4_000_000
MAX_PAYLOAD_BYTES = 256 << 20
MAX_LINE_BYTES = 4096
MAX_MEMO_INDEX = 1 << 32
MAX_NAME = 100


@dataclass
class Budget:
    """The limit on reading one file, for all its pickles together.

    Attributes:
        steps: Number of instructions left.
        inert: Names of the classes that became stubs.
    """

    steps: int = MAX_STEPS
    inert: set[str] = field(default_factory=set)


def read_pickle(stream: BinaryIO, size: int, budget: Budget, storage: Callable[[tuple[Any, ...]], Any] | None = None) -> Any:
    """Read one pickle from a seekable stream of `size` bytes and leave the stream at the pickle's end.

    `storage` returns the `View` for a persistent id (a tuple); without it, ids are refused.

    Returns:
        None, bool, int, float, str, bytes, list, tuple, dict (its keys as text), `Global`, `StoredTensor` or `Stub`. Containers
        may contain themselves.

    Raises:
        PickleError: the pickle is damaged, truncated, hostile or too large.
    """
    try:
        return _Machine(budget, storage).run(_Bounded(stream, size))
    except PickleError:
        raise
    except Exception as exc:  # any instruction of a damaged pickle can fail, each in its own way
        raise PickleError("its pickle cannot be read") from exc


class _Bounded:
    """A stream that raises where it ends too early, and allocates no more memory than the file has bytes."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size

    def read(self, count: int) -> bytes:
        small = count <= MAX_LINE_BYTES or count <= self._size - self._stream.tell()
        content = self._stream.read(count) if small and count <= MAX_PAYLOAD_BYTES else b""
        if len(content) != count:
            raise TruncatedPickleError("its pickle ends too early")
        return content

    def readline(self) -> bytes:
        content = self._stream.readline(MAX_LINE_BYTES)
        if not content.endswith(b"\n"):
            raise PickleError("a line of its pickle does not end")
        return content


class _Machine:
    """The stack machine of the pickle protocols 0 to 5."""

    def __init__(self, budget: Budget, storage: Callable[[tuple[Any, ...]], Any] | None) -> None:
        self.budget = budget
        self.storage = storage
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: _Bounded) -> Any:
        for instruction, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
            self.budget.steps -= 1
            if self.budget.steps < 0:
                raise PickleError(f"its pickle has more than {MAX_STEPS:,} instructions")
            if instruction.name == "STOP":
                break
            if instruction.name not in _HANDLERS:
                raise PickleError("its pickle has an instruction that no checkpoint has")
            _HANDLERS[instruction.name](self, argument)
        return self.stack.pop()

    def items(self) -> list[Any]:
        """Remove the values above the last mark, and return them."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def top(self, count: int) -> None:
        """Replace the top `count` values by their tuple."""
        if len(self.stack) < count:
            raise PickleError("its pickle takes values that are not there")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.items()

    def put(self, index: int) -> None:
        if not 0 <= index < MAX_MEMO_INDEX:
            raise PickleError("its pickle stores a value under an impossible number")
        self.memo[index] = self.stack[-1]

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Stub):
            target.values.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise PickleError("its pickle appends to something that is not a list")

    def update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if len(values) % 2:
            raise PickleError("its pickle has a key without a value")
        if not isinstance(target, dict | Stub):
            raise PickleError("its pickle sets items of something that is not a dictionary")
        items = target.items if isinstance(target, Stub) else target
        for key, value in zip(values[::2], values[1::2], strict=True):
            items[item_key(key)] = value

    def new_dict(self) -> None:
        values = self.items()
        self.stack.append({})
        self.update(values)

    def named(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("its pickle names a class by something that is not text")
        self.push_global(module, name)

    def push_global(self, module: str, name: str) -> None:
        full = f"{module[:MAX_NAME]}.{name[:MAX_NAME]}"  # a long name may occur a million times
        self.stack.append(Global(full if re.fullmatch(r"[\w.]+", full, re.ASCII) else ascii(full)))

    def instance(self, names: str) -> None:  # INST
        arguments = tuple(self.items())
        self.push_global(*names.split(" ", 1))
        self.stack.append(arguments)
        self.reduce()

    def object(self) -> None:  # OBJ
        maker, *arguments = self.items()
        self.stack += [maker, tuple(arguments)]
        self.reduce()

    def reduce(self, keywords: bool = False) -> None:
        if keywords:
            self.stack.pop()
        arguments, maker = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple):
            raise PickleError("its pickle passes something that is not arguments")
        self.stack.append(make(maker, arguments, self.budget.inert))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Stub):
            return  # an attribute that torch gives an OrderedDict or a tensor, such as _metadata
        for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):  # attributes, slots
            if isinstance(part, dict):
                target.state.append(part)
            else:
                target.values.append(part)

    def persistent(self) -> None:
        key = self.stack.pop()
        if self.storage is None or not isinstance(key, tuple) or not key:
            raise PickleError("its pickle refers to something outside it")
        self.stack.append(self.storage(key))


_HANDLERS: dict[str, Callable[[_Machine, Any], object]] = {
    **dict.fromkeys(
        (
            "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
            "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
            "BINBYTES8", "BYTEARRAY8",
        ),
        _Machine.push,
    ),
    **dict.fromkeys(("PROTO", "FRAME"), lambda _, __: None),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda m, _: m.push(m.items())),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda m, _: m.push([])),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, _: m.extend(m.items())),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, index: m.push(m.memo[index])),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m.reduce()),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.pop(),
    "POP_MARK": lambda m, _: m.items(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "DICT": lambda m, _: m.new_dict(),
    "TUPLE": lambda m, _: m.push(tuple(m.items())),
    "TUPLE1": lambda m, _: m.top(1),
    "TUPLE2": lambda m, _: m.top(2),
    "TUPLE3": lambda m, _: m.top(3),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "SETITEM": lambda m, _: m.update([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m.update(m.items()),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GLOBAL": lambda m, names: m.push_global(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.named(),
    "INST": _Machine.instance,
    "OBJ": lambda m, _: m.object(),
    "NEWOBJ_EX": lambda m, _: m.reduce(keywords=True),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.persistent(),
}  # fmt: skip
"""Actions by instruction, without those for the extension registry and out-of-band buffers, which no checkpoint has."""
