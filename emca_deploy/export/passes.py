"""Graph clean-up after the exporter: what the runtimes like better, and proof that nothing unwanted is left."""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy._optional import import_optional
from emca_deploy.errors import ModelError

__all__ = ["FORBIDDEN_OPERATORS", "check_operators", "simplify"]

FORBIDDEN_OPERATORS = frozenset(
    {"Shape", "Gather", "If", "Loop", "BatchNormalization", "Expand", "Tile", "Unsqueeze", "Constant"}
)
"""What a finished export never holds: shape computations, unfolded batch norm, unfolded constants."""

FOLD_LIMIT_BYTES = 2**30


def pool_globally(model: ir.Model) -> None:
    """Turn every ReduceMean over (H, W) that keeps its axes into GlobalAveragePool.

    They are the same, but ONNX Runtime has an INT8 kernel for the pooling only, and TensorRT before 8.6 a faster one.
    """
    for node in list(model.graph):
        if node.op_type != "ReduceMean" or node.attributes.get_int("keepdims", 1) != 1 or len(node.inputs) < 2:
            continue
        axes = node.inputs[1].const_value if node.inputs[1] is not None else None
        if axes is None or sorted(np.asarray(axes.numpy()).ravel() % 4) != [2, 3]:
            continue
        pool = ir.node("GlobalAveragePool", [node.inputs[0]], metadata_props=dict(node.metadata_props))
        pool.outputs[0].shape, pool.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [pool], node.outputs, pool.outputs)


def simplify(model: ir.Model) -> None:
    """Clean a freshly exported model in place."""
    # The exporter folds small constants only; SE's weights, viewed as 1x1 convolutions, are larger.
    import_optional("onnxscript.optimizer").fold_constants(
        model, input_size_limit=FOLD_LIMIT_BYTES, output_size_limit=FOLD_LIMIT_BYTES
    )
    pool_globally(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.DeduplicateInitializersPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)


def check_operators(model: ir.Model) -> None:
    """Refuse a model that holds any forbidden operator.

    Raises:
        ModelError: it does; they are named.
    """
    found = sorted({node.op_type for node in model.graph} & FORBIDDEN_OPERATORS)
    if found:
        raise ModelError(f"the export left {', '.join(found)} nodes", "report this with the architecture and versions")
