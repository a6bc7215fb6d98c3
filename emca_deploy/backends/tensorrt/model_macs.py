"""Multiply-accumulates of an ONNX model's nodes, so that a placement can be weighed rather than counted."""

from pathlib import Path

from emca_deploy.errors import ModelError
from emca_deploy.multiply_adds import known_shapes, proto_multiply_adds
from emca_deploy.onnx_file.file import OnnxFile

__all__ = ["node_macs"]


def node_macs(path: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the names of a model's nodes in topological order, and multiply-accumulates for one image of those that have any.

    A node without a name goes by its first output, as TensorRT's parser has it. A product whose shapes are not known has none.

    Raises:
        ModelError: it cannot be read.
    """
    import onnx

    model = OnnxFile.open(path).proto
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError as exc:
        raise ModelError(f"{path}: is not an ONNX file, or is damaged", "export or copy the model again") from exc
    shapes = known_shapes(inferred.graph)
    stored = {tensor.name for tensor in inferred.graph.initializer}
    batch = next((shapes[value.name][0] for value in inferred.graph.input if value.name not in stored), 1)
    names = tuple(node.name or node.output[0] for node in model.graph.node)
    counts = {name: proto_multiply_adds(node, shapes) for name, node in zip(names, model.graph.node, strict=True)}
    return names, {name: count // batch for name, count in counts.items() if count}
