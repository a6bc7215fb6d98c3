"""Operators of detectors that a version of TensorRT lacks or limits, which its parser reports only by their names."""

from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy.errors import ModelError
from emca_deploy.onnx_file.file import OnnxFile

if TYPE_CHECKING:
    import onnx

__all__ = ["LARGEST_K", "WITHOUT_ROI_ALIGN", "check_operators"]

WITHOUT_ROI_ALIGN = "tensorrt-rtx"
"""Backend whose parser has no RoiAlign: 1.7.1 looks for a plugin that it lacks."""

REGIONS_SINCE = (8, 5, 0)
"""First version of TensorRT with RoiAlign and GridSample: onnx-tensorrt, docs/Changelog.md, "TensorRT 8.5 GA Release"."""

REGIONS = ("RoiAlign", "GridSample")

LARGEST_K = 3840
"""Largest K of TopK in every version so far: NVIDIA/TensorRT issue 4244."""


def check_operators(path: Path, backend: str, version: tuple[int, ...]) -> None:
    """Refuse a model with an operator that this version of TensorRT does not take.

    Raises:
        ModelError: a node crops regions in a form that the version lacks, or selects more values than it can.
    """
    graph = OnnxFile.open(path).graph
    numbers = ".".join(map(str, version))
    for node in graph.node:
        name = f"node '{node.name or node.output[0]}' ({node.op_type})"
        if node.op_type == "RoiAlign" and backend == WITHOUT_ROI_ALIGN:
            raise ModelError(f"{path}: {name}: tensorrt-rtx does not parse RoiAlign", "export the detector with --roi gridsample")
        if node.op_type in REGIONS and backend == "tensorrt" and version < REGIONS_SINCE:
            raise ModelError(
                f"{path}: {name}: tensorrt {numbers} does not have it, 8.5 is the first that does",
                "use JetPack 5.1 or newer, or export the detector with --part dense",
            )
        if node.op_type == "TopK" and (count := _largest_k(graph, node)) > LARGEST_K:
            raise ModelError(
                f"{path}: {name} selects {count:,} values, and {backend} selects {LARGEST_K:,} at most",
                "lower the detector's boxes before suppression, or export it with --part dense",
            )


def _largest_k(graph: "onnx.GraphProto", node: "onnx.NodeProto") -> int:
    """Return a TopK's number of values, or 0 where it is no constant."""
    import onnx

    stored = next((tensor for tensor in graph.initializer if tensor.name == node.input[1]), None)
    return 0 if stored is None else int(onnx.numpy_helper.to_array(stored).max(initial=0))
