"""The TensorRT and TensorRT-RTX backends."""

from emca_deploy.backends.backend import Backend, Package

__all__ = ["TENSORRT", "TENSORRT_RTX"]

HERE = "emca_deploy.backends.tensorrt"

TENSORRT = Backend(
    "tensorrt",
    Package("tensorrt", "tensorrt", "8.6", extra="tensorrt"),
    runner=f"{HERE}.runner:TrtRunner",
    on_gpu=f"{HERE}.runner:TrtRunner",
    builder=f"{HERE}.builder:TrtBuilder",
    calibration_cache=True,
    trtexec=True,
    trt_settings=True,
    recipe=f"{HERE}.recipe:TENSORRT",
    needs_gpu=True,
    trouble=f"{HERE}.cuda:tensorrt_trouble",
)

TENSORRT_RTX = Backend(
    "tensorrt-rtx",
    Package("tensorrt_rtx", "tensorrt-rtx", "1.4", extra="tensorrt-rtx"),
    runner=f"{HERE}.runner:RtxRunner",
    on_gpu=f"{HERE}.runner:RtxRunner",
    builder=f"{HERE}.builder:RtxBuilder",
    trt_settings=True,
    recipe=f"{HERE}.recipe:TENSORRT_RTX",
    needs_gpu=True,
    names_capability=True,
    trouble=f"{HERE}.cuda:rtx_trouble",
)
