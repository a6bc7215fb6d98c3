"""Export of a torch module to an ONNX model with readable names: `stage2.block0.conv1`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from emca_deploy._optional import import_optional
from emca_deploy._version import __version__
from emca_deploy.errors import ModelError
from emca_deploy.preprocessing import Size, sides

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor, nn

__all__ = ["OPSET", "check_operators", "export_onnx", "simplify"]

OPSET = 20
"""Newest opset that ONNX Runtime, OpenVINO and TensorRT 10 all read without conversion."""

INPUT_NAME = "images"
OUTPUT_NAME = "logits"

FORBIDDEN_OPERATORS = frozenset(
    {"Shape", "Gather", "If", "Loop", "BatchNormalization", "Expand", "Tile", "Unsqueeze", "Constant"}
)
"""Operators that no export has: shape computations, unfolded batch norm, unfolded constants."""


def export_onnx(
    module: "nn.Module", image_size: Size, batch: int | None = None, opset: int = OPSET, *,
    call: "Callable[[Tensor], Any] | None" = None, forbidden: frozenset[str] = FORBIDDEN_OPERATORS,
) -> "ir.Model":  # fmt: skip
    """Return a module as an ONNX model: batch norm and constants folded, nodes named after modules, no shape computations.

    Args:
        module: Network that maps (N, 3, H, W) float32 to logits (N, classes), or to several tensors by name.
        image_size: Size of the images in pixels.
        batch: Number of images N; None makes it dynamic.
        opset: Opset of the model.
        call: Function of the images to export in place of the module's forward pass.
        forbidden: Operators that the model must not have.

    Raises:
        MissingError: torch is not installed.
        ModelError: the exporter refuses the module or the opset, or leaves forbidden nodes.
    """
    from emca_deploy.canonical.stacking import stack_scales
    from emca_deploy.exporting.naming import name_graph

    model = _traced(module.eval(), image_size, batch, opset, call)
    simplify(model)
    name_graph(model)
    stack_scales(model)
    check_operators(model, forbidden)
    model.producer_name, model.producer_version = "emca-deploy", __version__
    return model


def _traced(
    module: "nn.Module", image_size: Size, batch: int | None, opset: int, call: "Callable[[Tensor], Any] | None"
) -> "ir.Model":
    from onnx.defs import onnx_opset_version

    if opset > onnx_opset_version():
        raise ModelError(f"--opset {opset}: the exporter cannot write it", f"leave it out for {OPSET}")
    import_optional("torch")
    from emca_deploy.exporting.tracing import trace

    try:
        return trace(module, sides(image_size), batch, opset, INPUT_NAME, OUTPUT_NAME, call)
    except RuntimeError as exc:
        first_line = str(exc).strip().splitlines()[0]
        remedy = "try a smaller --batch or another --image-size"
        raise ModelError(f"the exporter refuses this model: {first_line}", remedy) from exc


def simplify(model: "ir.Model") -> None:
    """Clean a freshly exported model in place."""
    from onnx_ir.passes import common

    from emca_deploy.canonical.batch_norm import fold_batch_norm
    from emca_deploy.canonical.pooling import pool_globally

    fold_batch_norm(model)
    _drop_zero_biases(model)
    pool_globally(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.DeduplicateInitializersPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)


def _drop_zero_biases(model: "ir.Model") -> None:
    """Drop the bias of convolutions where it is zero, as in networks with fresh weights."""
    from emca_deploy.canonical.edit import constant_of

    for node in model.graph:
        bias = constant_of(node.inputs[2]) if node.op_type == "Conv" and len(node.inputs) > 2 else None
        if bias is not None and not bias.any():
            node.resize_inputs(2)


def check_operators(model: "ir.Model", forbidden: frozenset[str] = FORBIDDEN_OPERATORS) -> None:
    """Refuse a model with any forbidden operator.

    Raises:
        ModelError: the model has one, which the error names.
    """
    found = sorted({node.op_type for node in model.graph} & forbidden)
    if found:
        raise ModelError(
            f"the exported model still has {', '.join(found)} nodes", "report this with the architecture and versions"
        )
