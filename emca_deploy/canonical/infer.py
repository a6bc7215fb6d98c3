"""Shape inference that follows a dynamic batch through reshapes, where names of dimensions get lost.

ONNX's inference gives up on `Reshape(x, [-1, C, 1, 1])` of a dynamic batch. So it is run with a large prime number for the batch:
whatever dimension comes out as the prime is the batch, and its multiples are multiples of the batch.
"""

import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy.canonical.batch import image_value_of

__all__ = ["infer_shapes"]

PRIME = 1_000_003
"""No dimension of an image classifier, nor a product of some."""


def infer_shapes(model: ir.Model) -> None:
    """Infer the shapes of a model's tensors, in place; what cannot be inferred is left as it was."""
    image = image_value_of(model.graph)
    infer = common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    if image.shape is None or not len(image.shape) or isinstance(image.shape[0], int):
        infer(model)
        return
    given = image.shape
    batch = given[0].value if isinstance(given[0], ir.SymbolicDim) and given[0].value else "batch"
    image.shape = ir.Shape([PRIME, *list(given)[1:]])
    try:
        infer(model)
    finally:
        image.shape = given
        for graph in model.graphs():
            for value in (*graph.outputs, *(value for node in graph for value in node.outputs)):
                _name_batch(value, batch)


def _name_batch(value: ir.Value, batch: str) -> None:
    if value.shape is None or not any(isinstance(side, int) and side and side % PRIME == 0 for side in value.shape):
        return
    value.shape = ir.Shape([_named(side, batch) for side in value.shape])


def _named(side: "int | ir.SymbolicDim", batch: str) -> "int | ir.SymbolicDim":
    if not isinstance(side, int) or side == 0 or side % PRIME:
        return side
    return ir.SymbolicDim(batch if side == PRIME else f"{side // PRIME}*{batch}")
