"""Renamed modules: importing an old name works, with a DeprecationWarning."""

import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:  # importing it takes as long as the rest of this package's start
    from importlib.abc import Loader

__all__ = ["MOVED", "OldNames"]

MOVED = {
    "emca_deploy.backends.trt": "emca_deploy.backends.tensorrt",
    "emca_deploy.harness.telemetry": "emca_deploy.telemetry",
    "emca_deploy.models": "emca_deploy.networks",
    "emca_deploy.targets.jetson": "emca_deploy.machines.jetson",
    "emca_deploy.targets.trtexec": "emca_deploy.backends.tensorrt.tool",
}
"""New names of packages by their old ones."""


class OldNames:
    """Finder of modules by their old names. It runs before Python's own finders, which would load the file a second time."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return a spec for a module in a renamed package, or None."""
        for old, new in MOVED.items():
            if fullname == old or fullname.startswith(f"{old}."):
                return ModuleSpec(fullname, cast("Loader", self), origin=new + fullname.removeprefix(old))
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module by its new name; both names mean the same module."""
        assert spec.origin is not None
        warnings.warn(f"{spec.name} was renamed: import {spec.origin} instead", DeprecationWarning, stacklevel=2)
        module = import_module(spec.origin)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the module's own spec, which the import replaced."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state
