"""Record how TensorRT-RTX refuses a GPU that it has no kernels for. Part of benchmarks/gpu.py."""

from pathlib import Path

from emca_deploy._machine import default_threads
from emca_deploy._optional import import_optional
from emca_deploy.artifacts import Preprocessing
from emca_deploy.backends.base import RunOptions
from emca_deploy.backends.tensorrt.builder import RtxBuilder
from emca_deploy.backends.tensorrt.log import BuildLog, attach
from emca_deploy.backends.tensorrt.settings import TrtSettings, check_trt_settings
from emca_deploy.backends.tensorrt.versions import rules_of
from emca_deploy.data.bundled import bundled_checkpoint
from emca_deploy.errors import InputError
from emca_deploy.exporting.checkpoint import ExportOptions, export_checkpoint

__all__ = ["rtx_refusal"]

BACKEND = "tensorrt-rtx"


def rtx_refusal(capability: str, folder: Path) -> dict[str, str]:
    """Return TensorRT-RTX's messages for an unsupported GPU: the builder's list of GPUs, and the runtime's error for an engine.

    Args:
        capability: Compute capability of the GPU, such as "9.0".
        folder: Folder for a model and an engine.

    Returns:
        Messages by "builder" and "runtime"; empty where the GPU is supported.
    """
    trt = import_optional("tensorrt_rtx")
    try:
        check_trt_settings(trt, BACKEND, rules_of(BACKEND, trt.__version__), TrtSettings(targets=(capability,)))
    except InputError as error:
        builder = str(error)
    else:
        return {}
    preprocessing = Preprocessing.for_size(64)
    export_checkpoint(bundled_checkpoint(), folder / "refusal.onnx", ExportOptions(preprocessing=preprocessing))
    RtxBuilder().build(folder / "refusal.onnx", folder / "refusal.engine", RunOptions(default_threads(), batch=1))
    log = BuildLog()
    engine = trt.Runtime(attach(trt, log)).deserialize_cuda_engine((folder / "refusal.engine").read_bytes())
    return {"builder": builder, "runtime": "it loads a portable engine" if engine is not None else log.reason()}
