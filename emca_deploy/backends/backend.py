"""The record of a backend, which names its parts without importing them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from emca_deploy.errors import MissingError

__all__ = ["Backend", "Package", "load_part"]


@dataclass(frozen=True)
class Package:
    """A library that is installed separately.

    Attributes:
        distribution: Name under which pip installs it.
        minimum: Oldest version that works.
        extra: Extra of emca-deploy that installs it; empty where pip installs the distribution itself.
        alternatives: Other distributions with the same module.
        cuda_files: Pattern of the files, below the module's folder, that only a CUDA build has; None if no file shows that.
    """

    module: str
    distribution: str
    minimum: str
    extra: str = ""
    alternatives: tuple[str, ...] = ()
    cuda_files: str | None = None

    @property
    def install(self) -> str:
        """The command that installs it."""
        target = f"'emca-deploy[{self.extra}]'" if self.extra else self.distribution
        return f"pip install {target} (needs {self.distribution} {self.minimum} or newer)"


@dataclass(frozen=True)
class Backend:
    """A backend. Its parts are written "module:attribute", and `load_part` imports them on first use.

    Attributes:
        package: Its library; None where it needs none.
        runner: Class of its `Runner`, called with an artifact and `RunOptions`.
        on_gpu: Class of its `Runner` on an NVIDIA GPU, which also takes `device` (and `variant`); None where it runs on none.
        variants: Ways to run on a GPU that are measured separately; empty where there is only one.
        open_at_size: Function that opens a checkpoint on a GPU for one image size; empty where it runs no checkpoints.
        builder: Class of its `Builder`; None where it has no engines.
        engine_suffix: Ending of its engines' file names.
        layers: Class of its `LayerProfiler`; None where a running model does not report the times of its layers.
        trt_settings: Whether its builder is called with `TrtSettings` and a progress callable.
        calibration_cache: Whether its builder takes INT8 ranges from a calibration cache.
        trtexec: Whether the tool `trtexec` builds and times its engines.
        recipe: Its `Recipe` (`calibration.placement.recipe`); None where it runs no INT8 model.
        reads_onnx: Whether its runner takes .onnx files as they are.
        checkpoints: Whether its runner takes checkpoints.
        needs_gpu: Whether its runner needs an NVIDIA GPU; the builder checks its own needs.
        names_capability: Whether its builder takes the compute capabilities to compile for; it may lack kernels for some.
        saturates: Whether 8-bit weights give wrong answers on processors that add INT8 products in 16 bits.
        trouble: Function that returns (reason, remedy) if the installed library cannot run engines on this machine, else None.
        settings: Values that each of its settings takes; None means a positive number or "AUTO".
        tunables: Function that returns the settings worth trying, called with a `Situation`; None where nothing is tuned.
        hidden: Whether it is for tests only: not offered, and not listed by `doctor`.
        failure: Reason why its record could not be loaded; None where it was.
    """

    name: str
    package: Package | None = None
    runner: str = ""
    on_gpu: str | None = None
    variants: tuple[str, ...] = ()
    open_at_size: str = ""
    builder: str | None = None
    engine_suffix: str = ".engine"
    layers: str | None = None
    trt_settings: bool = False
    calibration_cache: bool = False
    trtexec: bool = False
    recipe: str | None = None
    reads_onnx: bool = False
    checkpoints: bool = False
    needs_gpu: bool = False
    names_capability: bool = False
    saturates: bool = False
    trouble: str | None = None
    settings: Mapping[str, tuple[str | int | bool, ...] | None] = field(default_factory=dict)
    tunables: str | None = None
    hidden: bool = False
    failure: str | None = None

    @property
    def module(self) -> str | None:
        """The module of its library; None where it needs none."""
        return self.package.module if self.package else None


def load_part(place: str) -> Any:
    """Import what "module:attribute" names; raise MissingError where a damaged distribution names what does not exist."""
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as exc:
        raise MissingError(f"{place} cannot be imported: {exc}", f"reinstall {module.partition('.')[0]}") from exc
