"""Writes the forward pass of a torch module as an ONNX graph, one node for each call on a tensor that depends on the images.

The module runs once on a tensor without data. Calls on weights alone are computed at once, which folds them to constants.
torch.onnx.export makes the same graph of our networks in twenty times the time. PyTorch's own shapes of tensors without data
are not used here either, because they load its compiler, which takes longer than all of the export.
"""

import onnx_ir as ir
import torch
from torch import nn

from emca_deploy.exporting.operators import LAYERS
from emca_deploy.exporting.recording import DYNAMIC_SIZE, Recorder, Traced

__all__ = ["trace"]

IR_VERSION = 10


def trace(module: nn.Module, sides: tuple[int, int], batch: int | None, opset: int, names: tuple[str, str]) -> ir.Model:
    """Return the ONNX model of a module in eval mode; `names` are those of its input and output.

    Raises:
        ModelError: the module calls a function that is not written here, or the images are too small for it.
    """
    recorder = Recorder(module, batch, LAYERS)
    images = recorder.traced([batch or DYNAMIC_SIZE, 3, *sides], ir.Value(name=names[0]))
    with torch.no_grad(), recorder.following(module):
        logits: Traced = module(images)
    logits.value.name = names[1]
    constants = [value for _, value in recorder.constants.values()]
    graph = ir.Graph(
        [images.value], [logits.value], nodes=recorder.nodes, initializers=constants, opset_imports={"": opset}, name="main_graph"
    )
    return ir.Model(graph, ir_version=IR_VERSION)
