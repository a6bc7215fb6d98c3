"""The one way to import a dependency that the base install lacks."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from emca_deploy.errors import MissingError

__all__ = ["CUDA_PARTS", "EXTRAS", "has_cuda", "import_optional", "installed_version", "require"]

EXTRAS: dict[str, tuple[str, str, str]] = {
    "torch": ("torch", "export", "2.9"),
    "onnxscript": ("onnxscript", "export", "0.5.6"),
    "onnx_ir": ("onnx-ir", "", "1.1"),
    "openvino": ("openvino", "openvino", "2024.4"),
    "onnxruntime": ("onnxruntime", "", "1.18"),
    "tensorrt": ("tensorrt", "tensorrt", "8.6"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx", "1.4"),
    "cuda": ("cuda-bindings", "gpu", "12.6"),
    "pynvml": ("nvidia-ml-py", "gpu", "12"),
    "jinja2": ("Jinja2", "report", "3.1"),
}
"""Module -> (distribution, the extra that brings it, minimum version). ONNX Runtime is in the base install."""


OTHERS: dict[str, tuple[str, ...]] = {"onnxruntime": ("onnxruntime-gpu",)}
"""Module -> distributions that bring it, too."""


def installed_version(module: str) -> str | None:
    """Return the installed version of a module's distribution without importing it, or None."""
    distribution = EXTRAS[module][0] if module in EXTRAS else module
    for name in (distribution, *OTHERS.get(module, ())):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


CUDA_PARTS = {"onnxruntime": "capi/*onnxruntime_providers_cuda.*", "torch": "lib/*torch_cuda.*"}
"""Module -> what it has of CUDA, by the names of its files on Linux and Windows."""


def has_cuda(module: str) -> bool:
    """Return whether a module of `CUDA_PARTS` is installed in a build for CUDA, without importing it."""
    found = find_spec(module)
    return found is not None and found.origin is not None and any(Path(found.origin).parent.glob(CUDA_PARTS[module]))


def import_optional(module: str) -> ModuleType:
    """Import `module`, which may be a submodule of an optional dependency ("onnxruntime.quantization").

    Raises:
        MissingError: it is not installed; the remedy names the extra and the minimum version.
    """
    distribution, extra, minimum = EXTRAS[module.split(".", maxsplit=1)[0]]
    try:
        return import_module(module)
    except ImportError as exc:
        target = f"'emca-deploy[{extra}]'" if extra else distribution
        raise MissingError(
            f"{distribution} is not installed, or does not load here: {exc}",
            f"pip install {target} (needs {distribution} {minimum} or newer)",
        ) from exc


def require(*modules: str) -> None:
    """Import every module of an extra now, so that a missing one is said before any work is done.

    Raises:
        MissingError: one of them is not installed.
    """
    for module in modules:
        import_optional(module)
