"""Counts a network's parameters and multiply-adds."""

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["count_macs", "count_parameters"]


def count_parameters(module: "nn.Module") -> int:
    """Return how many trainable numbers `module` has; batch norm's running statistics are none."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: "nn.Module", image_size: int) -> int:
    """Return the multiply-adds of one image (3, image_size, image_size), in inference.

    They are counted operator by operator as the module runs on PyTorch's meta device, which computes shapes only.
    Convolutions and matrix products count; pooling, batch norm and elementwise work do not, as in the papers. `module` itself is
    left as it is.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    shapes_only = copy.deepcopy(module, {id(p): torch.nn.Parameter(p.detach().to("meta")) for p in module.parameters()})
    shapes_only = shapes_only.to("meta").eval()
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes_only(image)
    return int(counter.get_total_flops()) // 2
