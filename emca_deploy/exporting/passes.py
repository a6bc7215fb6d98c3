"""Graph clean-up after the exporter: what the runtimes like better, and proof that nothing unwanted is left."""

import onnx_ir as ir
from onnx_ir.passes import common

from emca_deploy._optional import import_optional
from emca_deploy.canonical.pooling import pool_globally
from emca_deploy.errors import ModelError

__all__ = ["FORBIDDEN_OPERATORS", "check_operators", "simplify"]

FORBIDDEN_OPERATORS = frozenset(
    {"Shape", "Gather", "If", "Loop", "BatchNormalization", "Expand", "Tile", "Unsqueeze", "Constant"}
)
"""What a finished export never holds: shape computations, unfolded batch norm, unfolded constants."""

FOLD_LIMIT_BYTES = 2**30


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
