"""Reads a pickle into plain values and inert stubs: no class or function that it names is looked up, and nothing is called.

Python's own unpickler imports what a pickle names, and trusts the sizes that it states; this one does neither.
"""

import codecs
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from emca_deploy.networks.pickle_values import Global, PickleError, Stub, TruncatedPickleError, item_key, make

__all__ = ["Budget", "read_pickle"]

MAX_STEPS = 4_000_000
MAX_KEPT_BYTES = 1 << 20
MAX_LINE_BYTES = 4096
MAX_NUMBER_BYTES = 64
MAX_MEMO_INDEX = 1 << 32
MAX_NAME = 100


@dataclass
class Budget:
    """What reading one file may cost, over all its pickles.

    Attributes:
        steps: instructions left.
        inert: names of the classes that became stubs.
    """

    steps: int = MAX_STEPS
    inert: set[str] = field(default_factory=set)


def read_pickle(stream: BinaryIO, size: int, budget: Budget, storage: Callable[[tuple[Any, ...]], Any] | None = None) -> Any:
    """Read one pickle from `stream`, which is left behind its end.

    Args:
        stream: seekable.
        size: where the stream ends, in bytes.
        budget: is used up.
        storage: returns the `View` that a persistent id (a tuple) stands for; without it, ids are refused.

    Returns:
        None, bool, int, float, str, bytes, list, tuple, dict (its keys as text), `Global`, `StoredTensor` or `Stub`. Containers
        may contain themselves.

    Raises:
        PickleError: it is damaged, truncated, hostile or too large.
    """
    try:
        return _Machine(stream, size, budget, storage).run()
    except PickleError:
        raise
    except Exception as exc:  # a damaged pickle can make any instruction fail in its own way
        raise PickleError("its pickle cannot be read") from exc


class _Machine:
    """The stack machine of the pickle protocols 0 to 5."""

    def __init__(self, stream: BinaryIO, size: int, budget: Budget, storage: Callable[[tuple[Any, ...]], Any] | None) -> None:
        self.stream = stream
        self.size = size
        self.budget = budget
        self.storage = storage
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        read, handlers, budget = self.stream.read, _HANDLERS, self.budget
        while budget.steps > 0:
            budget.steps -= 1
            code = read(1)
            if code == b".":
                return self.stack.pop()
            handler = handlers.get(code)
            if handler is None:
                if not code:
                    raise TruncatedPickleError("its pickle ends too early")
                raise PickleError("its pickle holds an instruction that does not exist")
            handler(self)
        raise PickleError(f"its pickle has more than {MAX_STEPS:,} instructions")

    def take(self, count: int) -> bytes:
        content = self.stream.read(count) if count <= self.size - self.stream.tell() else b""
        if len(content) != count:
            raise TruncatedPickleError("its pickle ends too early")
        return content

    def number(self, layout: str) -> int:
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def line(self) -> bytes:
        content = self.stream.readline(MAX_LINE_BYTES)
        if not content.endswith(b"\n"):
            raise PickleError("a line of its pickle does not end")
        return content[:-1]

    def payload(self, count: int) -> bytes | None:
        """Return `count` bytes, or None in place of more than any name or option has."""
        if count < 0 or count > self.size - self.stream.tell():
            raise TruncatedPickleError("its pickle ends too early")
        if count <= MAX_KEPT_BYTES:
            return self.take(count)
        self.stream.seek(count, 1)
        return None

    def skip(self, unused: object) -> None:
        """Do nothing with what was read."""

    def push_text(self, content: bytes | None) -> None:
        self.stack.append(Stub("str") if content is None else content.decode("utf-8", "replace"))

    def push_bytes(self, content: bytes | None) -> None:
        self.stack.append(Stub("bytes") if content is None else content)

    def push_old_text(self, content: bytes | None) -> None:  # a str of Python 2
        self.stack.append(Stub("str") if content is None else content.decode("latin-1"))

    def push_integer(self, count: int) -> None:
        content = self.payload(count)
        small = content is not None and len(content) <= MAX_NUMBER_BYTES
        self.stack.append(int.from_bytes(content or b"", "little", signed=True) if small else Stub("int"))

    def items(self) -> list[Any]:
        """Return what lies above the last mark, and remove it."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def top(self, count: int) -> None:
        """Replace the topmost `count` values by their tuple."""
        if len(self.stack) < count:
            raise PickleError("its pickle takes values that are not there")
        found = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(found)

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.items()

    def put(self, index: int) -> None:
        if not 0 <= index < MAX_MEMO_INDEX:
            raise PickleError("its pickle remembers a value under a number that none has")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def text_number(self) -> None:
        text = self.line()
        if text in (b"00", b"01"):
            self.stack.append(text == b"01")
        else:
            self.stack.append(int(text.rstrip(b"L")) if len(text) <= MAX_NUMBER_BYTES else Stub("int"))

    def quoted_text(self) -> None:
        text = self.line()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
            raise PickleError("a text of its pickle has no quotes")
        self.push_old_text(codecs.escape_decode(text[1:-1])[0])

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Stub):
            target.values.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise PickleError("its pickle appends to something else than a list")

    def update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if len(values) % 2:
            raise PickleError("its pickle has a key without a value")
        if not isinstance(target, dict | Stub):
            raise PickleError("its pickle sets items of something else than a dictionary")
        items = target.items if isinstance(target, Stub) else target
        for key, value in zip(values[::2], values[1::2], strict=True):
            items[item_key(key)] = value

    def append(self) -> None:
        value = self.stack.pop()
        self.extend([value])

    def set_item(self) -> None:
        self.top(2)
        pair = self.stack.pop()
        self.update(list(pair))

    def new_dict(self) -> None:
        values = self.items()
        self.stack.append({})
        self.update(values)

    def named(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("its pickle names a class by something else than text")
        self.push_global(module, name)

    def push_global(self, module: str, name: str) -> None:
        full = f"{module[:MAX_NAME]}.{name[:MAX_NAME]}"  # a long text may be named a million times
        self.stack.append(Global(full if re.fullmatch(r"[\w.]+", full, re.ASCII) else ascii(full)))

    def global_lines(self) -> None:
        module, name = self.line(), self.line()
        self.push_global(module.decode("utf-8"), name.decode("utf-8"))

    def instance(self) -> None:  # INST
        module, name = self.line(), self.line()
        arguments = tuple(self.items())
        self.push_global(module.decode("utf-8"), name.decode("utf-8"))
        self.stack.append(arguments)
        self.reduce()

    def object(self) -> None:  # OBJ
        maker, *arguments = self.items()
        self.stack += [maker, tuple(arguments)]
        self.reduce()

    def reduce(self) -> None:
        arguments, maker = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple):
            raise PickleError("its pickle passes something else than arguments")
        self.stack.append(make(maker, arguments, self.budget.inert))

    def new_object_with_names(self) -> None:  # NEWOBJ_EX
        self.stack.pop()
        self.reduce()

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Stub):
            return  # what torch hangs on an OrderedDict or a tensor, such as _metadata
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


_HANDLERS: dict[bytes, Callable[[_Machine], None]] = {
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": lambda m: m.skip(m.items()),
    b"2": lambda m: m.stack.append(m.stack[-1]),
    b"F": lambda m: m.stack.append(float(m.line())),
    b"I": _Machine.text_number,
    b"L": _Machine.text_number,
    b"J": lambda m: m.stack.append(m.number("<i")),
    b"K": lambda m: m.stack.append(m.take(1)[0]),
    b"M": lambda m: m.stack.append(m.number("<H")),
    b"G": lambda m: m.stack.append(m.number(">d")),
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"\x8a": lambda m: m.push_integer(m.take(1)[0]),
    b"\x8b": lambda m: m.push_integer(m.number("<i")),
    b"S": _Machine.quoted_text,
    b"T": lambda m: m.push_old_text(m.payload(m.number("<i"))),
    b"U": lambda m: m.push_old_text(m.payload(m.take(1)[0])),
    b"V": lambda m: m.stack.append(m.line().decode("raw-unicode-escape", "replace")),
    b"X": lambda m: m.push_text(m.payload(m.number("<I"))),
    b"\x8c": lambda m: m.push_text(m.payload(m.take(1)[0])),
    b"\x8d": lambda m: m.push_text(m.payload(m.number("<Q"))),
    b"B": lambda m: m.push_bytes(m.payload(m.number("<I"))),
    b"C": lambda m: m.push_bytes(m.payload(m.take(1)[0])),
    b"\x8e": lambda m: m.push_bytes(m.payload(m.number("<Q"))),
    b"\x96": lambda m: m.push_bytes(m.payload(m.number("<Q"))),
    b"}": lambda m: m.stack.append({}),
    b"]": lambda m: m.stack.append([]),
    b"\x8f": lambda m: m.stack.append([]),
    b")": lambda m: m.stack.append(()),
    b"d": _Machine.new_dict,
    b"l": lambda m: m.push(m.items()),
    b"t": lambda m: m.push(tuple(m.items())),
    b"\x91": lambda m: m.push(m.items()),
    b"\x85": lambda m: m.top(1),
    b"\x86": lambda m: m.top(2),
    b"\x87": lambda m: m.top(3),
    b"a": _Machine.append,
    b"e": lambda m: m.extend(m.items()),
    b"\x90": lambda m: m.extend(m.items()),
    b"s": _Machine.set_item,
    b"u": lambda m: m.update(m.items()),
    b"p": lambda m: m.put(int(m.line())),
    b"q": lambda m: m.put(m.take(1)[0]),
    b"r": lambda m: m.put(m.number("<I")),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"g": lambda m: m.get(int(m.line())),
    b"h": lambda m: m.get(m.take(1)[0]),
    b"j": lambda m: m.get(m.number("<I")),
    b"c": _Machine.global_lines,
    b"\x93": _Machine.named,
    b"i": _Machine.instance,
    b"o": _Machine.object,
    b"R": _Machine.reduce,
    b"\x81": _Machine.reduce,
    b"\x92": _Machine.new_object_with_names,
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
    b"\x80": lambda m: m.skip(m.take(1)),
    b"\x95": lambda m: m.skip(m.take(8)),
}
"""What each instruction does. Not there: the extension registry and out-of-band buffers, which no checkpoint has."""
