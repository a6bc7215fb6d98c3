"""emca-deploy: from a trained EMCA-ResNet to a measured, verified INT8 deployment.

Importing this package loads no torch, OpenVINO, TensorRT or ONNX Runtime; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING, Any

from emca_deploy._version import __version__

if TYPE_CHECKING:
    from emca_deploy.networks.checkpoints import load_checkpoint
    from emca_deploy.networks.registry import create_model

__all__ = ["__version__", "create_model", "load_checkpoint"]

_LAZY = {"create_model": "emca_deploy.networks.registry", "load_checkpoint": "emca_deploy.networks.checkpoints"}


def __getattr__(name: str) -> Any:
    """Import the public functions that need torch only when they are asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'emca_deploy' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
