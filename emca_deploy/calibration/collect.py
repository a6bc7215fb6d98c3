"""Collecting ranges: one streaming pass of the fp32 model over the calibration images.

Minima and maxima are taken inside the graph, by ReduceMin and ReduceMax nodes on every activation, so that only two numbers
per tensor leave the runtime. Memory does not depend on the number of images.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from emca_deploy.calibration.graph import activations, load_graph, only_feeds
from emca_deploy.calibration.observers import MinMaxObserver, TensorRange
from emca_deploy.errors import DataError, ModelError

if TYPE_CHECKING:
    from emca_deploy.data.sources import ImageSource

__all__ = ["collect_ranges"]

BATCH = 8
"""Images a call; larger ones fall out of the cache and gain nothing."""

Progress = Callable[[int, int], None]


def collect_ranges(
    model_path: Path, source: "ImageSource", indices: Sequence[int], threads: int, progress: Progress | None = None
) -> dict[str, TensorRange]:
    """Return the range of every activation that a placement may quantize.

    Args:
        model_path: the fp32 ONNX model.
        source: the calibration images.
        indices: which of them.
        threads: for the runtime.
        progress: called with (images done, images in all).

    Raises:
        ModelError: the model cannot be run on these images.
        DataError: an activation is infinite or not a number; the tensor and the images are named.
    """
    model = load_graph(model_path)
    names = _add_reductions(model)
    session = _session(model, model_path, threads)
    given = session.get_inputs()[0]
    fixed = given.shape[0] if isinstance(given.shape[0], int) else None
    observers = {name: MinMaxObserver() for name in names}
    done = 0
    for images, _ in source.batches(fixed or BATCH, indices):
        count = len(images)
        # A model of fixed batch gets its last one filled by repetition: a range does not mind.
        full = images if not fixed else images[[i % count for i in range(fixed)]]
        outputs = _run(session, given.name, full, model_path)
        for position, name in enumerate(names):
            try:
                observers[name].observe(outputs[2 * position], outputs[2 * position + 1])
            except ValueError as exc:
                where = ", ".join(source.item_name(i) for i in indices[done : done + count])
                raise DataError(
                    f"tensor {name}: {exc}, in one of the images {where}", "check these images and the model's weights"
                ) from exc
        done += count
        if progress:
            progress(done, len(indices))
    return {name: observer.range() for name, observer in observers.items()}


def _add_reductions(model: ir.Model) -> list[str]:
    """Make the graph's outputs the minimum and maximum of every activation worth a range; return their names.

    What only feeds a ReLU is left out: no placement quantizes it, and the runtime can go on fusing the two.
    """
    graph = model.graph
    opset = model.opset_imports.get("", 0)
    if opset < 13:
        raise ModelError(f"the model's opset is {opset}", "export it with opset 13 or newer")
    values = [value for value in activations(graph) if not only_feeds(value, "Relu")]
    graph.outputs.clear()
    for value in values:
        for operator in ("ReduceMin", "ReduceMax"):
            node = ir.node(operator, [value], {"keepdims": 0})
            node.outputs[0].name = f"{value.name}/{operator}"
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            node.outputs[0].shape = ir.Shape([])
            graph.append(node)
            graph.outputs.append(node.outputs[0])
    return [str(value.name) for value in values]


def _session(model: ir.Model, path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime raises a dozen unrelated classes
        raise ModelError(f"{path}: ONNX Runtime refuses it: {str(exc).splitlines()[0]}", "export it again") from exc


def _run(session: Any, name: str, images: Any, path: Path) -> Any:
    try:
        return session.run(None, {name: images})
    except Exception as exc:
        raise ModelError(
            f"{path}: cannot run images of shape {tuple(images.shape[1:])}: {str(exc).splitlines()[0]}",
            "give data of the model's input size",
        ) from exc
