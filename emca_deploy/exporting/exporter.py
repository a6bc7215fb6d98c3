"""torch module -> ONNX file, through torch.export."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emca_deploy._optional import import_optional
from emca_deploy._version import __version__
from emca_deploy.errors import ModelError
from emca_deploy.preprocessing import Size, sides

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

__all__ = ["FORBIDDEN_OPERATORS", "INPUT_NAME", "OPSET", "OUTPUT_NAME", "check_operators", "export_onnx", "simplify"]

OPSET = 20
"""The newest that ONNX Runtime, OpenVINO and TensorRT 10 all take without conversion."""

INPUT_NAME = "images"
OUTPUT_NAME = "logits"

FORBIDDEN_OPERATORS = frozenset(
    {"Shape", "Gather", "If", "Loop", "BatchNormalization", "Expand", "Tile", "Unsqueeze", "Constant"}
)
"""What a finished export never holds: shape computations, unfolded batch norm, unfolded constants."""

FOLD_LIMIT_BYTES = 2**30


def export_onnx(module: "nn.Module", image_size: Size, batch: int | None = None, opset: int = OPSET) -> "ir.Model":
    """Return a module as an ONNX model: batch norm and constants folded, nodes named after modules, no shape computations.

    Args:
        module: maps (N, 3, H, W) float32 to logits (N, classes).
        image_size: pixels of the input: the side of a square, or (height, width).
        batch: a fixed batch size, or None for a dynamic one.
        opset: of the ONNX file.

    Raises:
        MissingError: torch or onnxscript is not installed.
        ModelError: the exporter refuses the module or the opset, or leaves nodes it should not.
    """
    from onnx.defs import onnx_opset_version

    from emca_deploy.exporting.naming import name_graph

    if opset > onnx_opset_version():
        raise _opset_error(opset)
    model = _traced(module.eval(), image_size, batch, opset)
    simplify(model)
    name_graph(model)
    check_operators(model)
    model.producer_name, model.producer_version = "emca-deploy", __version__
    return model


def _traced(module: "nn.Module", image_size: Size, batch: int | None, opset: int) -> "ir.Model":
    torch = import_optional("torch")
    import_optional("onnxscript")
    dynamic = None if batch else ({0: torch.export.Dim("batch")},)
    try:
        # Two images: torch.export would specialise a batch of one to the constant 1.
        example = torch.zeros(batch or 2, 3, *sides(image_size))
        with _quiet(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=dynamic,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                optimize=True,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as exc:
        first_line = str(exc).strip().splitlines()[0]
        remedy = "try a smaller --batch or --image-size, or another --opset"
        raise ModelError(f"the exporter refuses this model: {first_line}", remedy) from exc
    model: ir.Model = program.model
    if model.opset_imports.get("") != opset:  # the exporter only logs that it cannot convert
        raise _opset_error(opset)
    return model


def _opset_error(opset: int) -> ModelError:
    return ModelError(f"--opset {opset}: the exporter cannot write it", f"leave it out for {OPSET}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of the exporter: that torchvision is missing, which nothing here needs, and how it converts opsets."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def simplify(model: "ir.Model") -> None:
    """Clean a freshly exported model in place."""
    from onnx_ir.passes import common

    from emca_deploy.canonical.pooling import pool_globally

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


def check_operators(model: "ir.Model") -> None:
    """Refuse a model that holds any forbidden operator.

    Raises:
        ModelError: it does; they are named.
    """
    found = sorted({node.op_type for node in model.graph} & FORBIDDEN_OPERATORS)
    if found:
        raise ModelError(f"the export left {', '.join(found)} nodes", "report this with the architecture and versions")
