"""The ONNX Runtime backend."""

from emca_deploy.backends.backend import Backend, Package

__all__ = ["BACKEND"]

HERE = "emca_deploy.backends.onnxruntime"
BOOL = (False, True)

BACKEND = Backend(
    "onnxruntime",
    Package(
        "onnxruntime",
        "onnxruntime",
        "1.18",
        alternatives=("onnxruntime-gpu",),
        cuda_files="capi/*onnxruntime_providers_cuda.*",
    ),
    runner=f"{HERE}.runner:OrtRunner",
    on_gpu=f"{HERE}.runner:OrtRunner",
    builder=f"{HERE}.runner:OrtBuilder",
    engine_suffix=".ort.onnx",
    layers=f"{HERE}.layers:OrtLayerProfiler",
    recipe=f"{HERE}.recipe:RECIPE",
    reads_onnx=True,
    settings={
        "graph_optimization": ("all", "layout", "extended", "basic"),
        "execution_mode": ("sequential", "parallel"),
        "force_spinning_stop": BOOL,
        "flush_denormals": BOOL,
        "fastmath_bf16": BOOL,
        "exact_qdq": BOOL,  # computes Q/DQ pairs in float, as ONNX defines them: slower, and never tried by `tune`
    },
    tunables=f"{HERE}.tunables:tunables",
)
