"""Writes the forward pass of a torch module as an ONNX graph, one node for each call on a tensor that depends on the images.

The module runs once on a tensor without data. Calls on weights alone are computed at once, which folds them to constants.
torch.onnx.export makes the same graph of our networks in twenty times the time. PyTorch's own shapes of tensors without data
are not used here either, because they load its compiler, which takes longer than all of the export.
"""

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from emca_deploy.exporting.arithmetic import ARITHMETIC
from emca_deploy.exporting.indexing import INDEXING
from emca_deploy.exporting.recording import DYNAMIC_SIZE, Recorder, Traced
from emca_deploy.exporting.traced_layers import LAYERS

__all__ = ["trace"]

IR_VERSION = 10


WRITTEN = {**LAYERS, **ARITHMETIC, **INDEXING}
"""Functions of torch that networks call, and what writes their nodes."""


def trace(
    module: nn.Module, sides: tuple[int, int], batch: int | None, opset: int, input_name: str, output_name: str = "output",
    call: Callable[[Tensor], Any] | None = None,
) -> ir.Model:  # fmt: skip
    """Return the ONNX model of a module in eval mode, which maps images (N, 3, H, W) float32 to a tensor or to several by name.

    Args:
        module: Network.
        sides: Height and width of the images in pixels.
        batch: Number of images; None makes it dynamic.
        opset: Opset of the graph.
        input_name: Name of the graph's input.
        output_name: Name of its output, where there is only one.
        call: Function of the images to write in place of the module's forward pass.

    Raises:
        ModelError: the module calls a function that is not written here, or the images are too small for it.
    """
    recorder = Recorder(module, batch, opset, WRITTEN)
    images = recorder.traced([batch or DYNAMIC_SIZE, 3, *sides], ir.Value(name=input_name))
    with torch.no_grad(), recorder.following(module):
        result = (call or module)(images)
    outputs = result if isinstance(result, dict) else {output_name: result}
    values = [_output(recorder, name, each) for name, each in outputs.items()]
    constants = [value for _, value in recorder.constants.values()]
    graph = ir.Graph(
        [images.value], values, nodes=recorder.nodes, initializers=constants, opset_imports={"": opset}, name="main_graph"
    )
    return ir.Model(graph, ir_version=IR_VERSION)


def _output(recorder: Recorder, name: str, result: Traced) -> ir.Value:
    """Return the value of an output under its name; a value that has a name of an output already is copied."""
    taken = result.value.name is not None and ":" not in result.value.name
    value = (recorder.node("Identity", result.shape, [result], result.dtype) if taken else result).value
    value.name = name
    return value
