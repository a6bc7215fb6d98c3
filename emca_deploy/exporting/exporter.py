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

__all__ = ["INPUT_NAME", "OPSET", "OUTPUT_NAME", "export_onnx"]

OPSET = 20
"""The newest that ONNX Runtime, OpenVINO and TensorRT 10 all take without conversion."""

INPUT_NAME = "images"
OUTPUT_NAME = "logits"


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
    from emca_deploy.exporting.passes import check_operators, simplify

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
