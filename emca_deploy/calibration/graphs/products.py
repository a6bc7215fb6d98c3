"""Matrix products on one thread each.

The OpenBLAS in numpy's wheels splits a product among threads that wait for each other by spinning. For products of some hundred
columns this costs more than it gains, on a busy machine ten times as much. Work that has threads of its own switches it off.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["products_on_one_thread"]

_FUNCTIONS = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")


@contextmanager
def products_on_one_thread() -> Iterator[None]:
    """Give numpy's matrix products one thread each in this process, where its library is known; restore the number at the end."""
    functions = _thread_functions()
    if functions is None:
        yield
        return
    get, set_number = functions
    before = int(get())
    set_number(1)
    try:
        yield
    finally:
        set_number(before)


@cache
def _thread_functions() -> tuple[Any, Any] | None:
    """Return the functions of numpy's own OpenBLAS that return and set its number of threads; None for another library."""
    package = Path(np.__file__).parent
    for folder in (package.with_name("numpy.libs"), package / ".dylibs"):  # Linux and Windows, macOS
        for path in sorted(folder.glob("*openblas*")) if folder.is_dir() else ():
            with suppress(OSError):
                library = ctypes.CDLL(str(path))
                for name in _FUNCTIONS:
                    with suppress(AttributeError):
                        return getattr(library, name.format("get")), getattr(library, name.format("set"))
    return None
