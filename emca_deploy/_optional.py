"""Imports of dependencies that the base install lacks."""

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from emca_deploy.backends.backend import Package
from emca_deploy.backends.records import BACKENDS
from emca_deploy.errors import MissingError

__all__ = ["backend_packages", "has_cuda", "import_optional", "installed_version", "package_of"]

_PACKAGES = (
    Package("onnx_ir", "onnx-ir", "1.1"),
    Package("cuda", "cuda-bindings", "12.6", "gpu"),
    Package("pynvml", "nvidia-ml-py", "12", "gpu"),
    Package("jinja2", "Jinja2", "3.1", "report"),
    Package("junitparser", "junitparser", "3.1", "report"),
    Package("mlflow", "mlflow-skinny", "3", "mlflow", ("mlflow",)),
    Package("dask", "dask", "2024.12", "fleet"),
    Package("distributed", "distributed", "2024.12", "fleet"),
    Package("pycocotools", "pycocotools", "2.0.7", "detect"),
)
"""Optional libraries that belong to no backend."""


@cache
def backend_packages() -> tuple[Package, ...]:
    """Return the libraries of all backends."""
    return tuple(backend.package for backend in BACKENDS.values() if backend.package)


@cache
def package_of(module: str) -> Package | None:
    """Return the package that has a module, or None for a module of the base install or an unknown one."""
    return next((package for package in (*_PACKAGES, *backend_packages()) if package.module == module), None)


def installed_version(module: str) -> str | None:
    """Return the installed version of a module's distribution without importing it, or None."""
    package = package_of(module)
    for name in (package.distribution, *package.alternatives) if package else (module,):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def has_cuda(package: Package) -> bool:
    """Return whether a package is installed with CUDA support, without importing it."""
    found = find_spec(package.module) if package.cuda_files else None
    return found is not None and found.origin is not None and any(Path(found.origin).parent.glob(str(package.cuda_files)))


def import_optional(module: str) -> ModuleType:
    """Import `module`, which may be a submodule of an optional dependency ("onnxruntime.quantization").

    Raises:
        MissingError: the module is not installed; the remedy names the extra and the minimum version.
    """
    name = module.split(".", maxsplit=1)[0]
    package = package_of(name) or Package(name, name, "0")
    try:
        return import_module(module)
    except ImportError as exc:
        raise MissingError(f"{package.distribution} is not installed, or does not load here: {exc}", package.install) from exc
