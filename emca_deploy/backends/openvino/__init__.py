"""The OpenVINO backend."""

from emca_deploy.backends.backend import Backend, Package

__all__ = ["BACKEND"]

HERE = "emca_deploy.backends.openvino"
BOOL = (False, True)

BACKEND = Backend(
    "openvino",
    Package("openvino", "openvino", "2024.4", extra="openvino"),
    runner=f"{HERE}.runner:OvRunner",
    builder=f"{HERE}.runner:OvBuilder",
    engine_suffix=".ov",
    layers=f"{HERE}.layers:OvLayerProfiler",
    recipe=f"{HERE}.recipe:RECIPE",
    reads_onnx=True,
    saturates=True,
    settings={
        "streams": None,
        "hint": ("LATENCY", "THROUGHPUT"),
        "pinning": BOOL,
        "hyper_threading": BOOL,
        "core_type": ("ANY_CORE", "PCORE_ONLY", "ECORE_ONLY"),
        "flush_denormals": BOOL,
    },
    tunables=f"{HERE}.tunables:tunables",
)
