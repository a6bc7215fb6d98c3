"""Values that a pickle's objects become: plain values, tensors whose values are not yet read, and inert stubs."""

from collections.abc import Callable, MutableSet
from dataclasses import dataclass, field
from typing import Any

from emca_deploy.checkpoint_files.stored import Storage, StoredTensor, describe_tensor

__all__ = ["Global", "HostilePickleError", "PickleError", "Stub", "TruncatedPickleError", "View", "item_key", "make"]

MAX_ARGUMENTS = 16
MAX_METADATA = 8

_SYSTEM_MODULES = (
    "os", "posix", "nt", "ntpath", "subprocess", "commands", "pty", "shutil", "runpy", "importlib", "sys", "socket", "ctypes",
    "webbrowser", "code", "pdb", "timeit", "cProfile", "profile", "pip", "multiprocessing", "asyncio", "urllib", "requests",
)  # fmt: skip
_SYSTEM_BUILTINS = ("eval", "exec", "compile", "__import__", "open", "execfile", "input", "breakpoint")
_MODULES = ("torch.nn.", "__torch__.")
"""Modules of PyTorch and TorchScript, whose stubs have tensors in them."""

_SYSTEM_RECORDS = ("_Environ", "stat_result", "terminal_size", "uname_result")


class PickleError(ValueError):
    """The pickle is damaged, or larger than any checkpoint's."""


class TruncatedPickleError(PickleError):
    """The pickle ends too early."""


class HostilePickleError(PickleError):
    """The pickle calls a function that runs commands or reaches the system; the message is its name."""


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle names ("module.name"), which is not imported."""

    name: str


@dataclass(eq=False)
class Stub:
    """An object of an unknown class, with all that the pickle puts into it, by reference.

    Attributes:
        items: Items of a subclass of dict.
        values: Elements of a subclass of list, and arguments.
        state: Attributes, as dictionaries.
    """

    name: str
    items: dict[str, Any] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    state: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class View:
    """A storage with the dtype that the pickle gives it, by torch's name."""

    dtype: str
    storage: Storage


def item_key(key: Any) -> str:
    """Return a dictionary's key as text."""
    if isinstance(key, str):
        return key
    return str(key) if isinstance(key, int) else f"<{type(key).__name__}>"


def make(maker: Any, arguments: tuple[Any, ...], inert: MutableSet[str]) -> Any:
    """Return a value for `maker(*arguments)` without calling it; a stub where `maker` is not a known `Global`.

    The functions that torch.save uses are written anew in this module. Arguments are kept by reference, because a pickle can pass
    the same long list a million times. The name of an unknown class that is not PyTorch's is added to `inert`.

    Raises:
        HostilePickleError: `maker` runs commands or reaches the system.
        ValueError, TypeError: the arguments do not fit this maker.
    """
    if not isinstance(maker, Global):
        return Stub("object", values=[arguments])
    if maker.name == "torch._tensor._rebuild_from_type_v2" and len(arguments) == 4 and arguments[0] != maker:
        return make(arguments[0], arguments[2], inert)  # (function, type, its arguments, attributes)
    known = _MAKERS.get(maker.name)
    if known is not None and len(arguments) <= MAX_ARGUMENTS:
        return known(*arguments)
    if _reaches_system(maker.name):
        raise HostilePickleError(maker.name)
    if not maker.name.startswith(_MODULES):
        inert.add(maker.name)
    return Stub(maker.name, values=[arguments])


def _reaches_system(name: str) -> bool:
    module, _, function = name.rpartition(".")
    if module in ("builtins", "__builtin__"):
        return function in _SYSTEM_BUILTINS
    return module.split(".")[0] in _SYSTEM_MODULES and not function[:1].isupper() and function not in _SYSTEM_RECORDS


def _tensor(view: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> StoredTensor:
    """Replace torch._utils._rebuild_tensor and its versions 2 and 3; `rest`: requires_grad, hooks, dtype or metadata."""
    if not isinstance(view, View):
        return StoredTensor("float32", (), problem="was pickled in another way than by torch.save")
    # Version 3 passes the dtype, and its storage has bytes.
    dtype = rest[2].name.removeprefix("torch.") if len(rest) > 2 and isinstance(rest[2], Global) else view.dtype
    flags = (flag for part in rest[2:] if isinstance(part, dict) and len(part) <= MAX_METADATA for flag in part.values())
    if any(flag is True for flag in flags):
        return StoredTensor(dtype, (), problem="is not an ordinary tensor (a conjugate or negative view)")
    return describe_tensor(dtype, view.storage, shape, stride, offset)


def _unusual(problem: str) -> Callable[..., StoredTensor]:
    return lambda *arguments: StoredTensor("float32", (), problem=problem)


def _first(first: Any, *rest: Any) -> Any:
    return first


def _dictionary(*arguments: Any) -> Any:
    for argument in arguments:
        if isinstance(argument, dict):
            return argument
        if isinstance(argument, list):  # OrderedDict in Python 2: a list of pairs
            return {item_key(key): value for key, value in argument}
    return {}


def _sequence(*arguments: Any) -> Any:
    return arguments[0] if arguments and isinstance(arguments[0], list | tuple) else []


def _nothing(*arguments: Any) -> Any:
    """Replace values, such as numbers and devices, that are not needed and not listed as inert."""
    return Stub("value")


_MAKERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._utils._rebuild_qtensor": _unusual("is not an ordinary tensor (quantized)"),
    "torch._utils._rebuild_sparse_tensor": _unusual("is not an ordinary tensor (sparse)"),
    "torch._utils._rebuild_sparse_csr_tensor": _unusual("is not an ordinary tensor (sparse)"),
    "torch._utils._rebuild_nested_tensor": _unusual("is not an ordinary tensor (nested)"),
    "torch._utils._rebuild_wrapper_subclass": _unusual("is not an ordinary tensor (a subclass)"),
    "torch._utils._rebuild_device_tensor_from_numpy": _unusual("is not an ordinary tensor (a NumPy array of another device)"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unusual("has a shape but not its values: it was on the meta device"),
    "torch.Size": _sequence,
    "torch.device": _nothing,
    "torch.serialization._get_layout": _nothing,
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": _dictionary,
    "collections.Counter": _dictionary,
    "builtins.dict": _dictionary,
    "builtins.list": _sequence,
    "builtins.set": _sequence,
    "builtins.frozenset": _sequence,
    "__builtin__.dict": _dictionary,
    "__builtin__.set": _sequence,
    "builtins.complex": _nothing,
    "builtins.bytearray": _nothing,
    "builtins.slice": _nothing,
    "_codecs.encode": _nothing,
}
