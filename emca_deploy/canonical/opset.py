"""Raising old files to the operators that the backends' INT8 needs."""

from pathlib import Path
from typing import TYPE_CHECKING

from emca_deploy.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["LEAST_OPSET", "raise_opset"]

LEAST_OPSET = 13
"""Since 13, DequantizeLinear has one scale for each channel."""

RAISED_OPSET = 17
OLDEST_OPSET = 7
LEAST_IR = 8


def raise_opset(path: Path, model: "onnx.ModelProto", opset: int) -> "onnx.ModelProto":
    """Return the model at opset 13 or newer; one that is there already is returned as it is.

    Raises:
        ModelError: the opset is older than 7, or the converter cannot convert an operator.
    """
    if opset >= LEAST_OPSET:
        return model
    remedy = f"export it again with opset {RAISED_OPSET}"
    if opset < OLDEST_OPSET:
        raise ModelError(f"{path}: its opset is {opset}, and {OLDEST_OPSET} is the oldest that can be converted", remedy)
    from onnx import version_converter

    # The converter takes no initializers among the inputs, and files of IR version 3 need them there.
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, LEAST_IR)
    try:
        return version_converter.convert_version(model, RAISED_OPSET)
    except Exception as exc:  # the converter raises RuntimeError and its own ConvertError
        cause = str(exc).strip().splitlines() or [type(exc).__name__]
        raise ModelError(f"{path}: its opset {opset} cannot be converted to {RAISED_OPSET}: {cause[-1][:200]}", remedy) from exc
