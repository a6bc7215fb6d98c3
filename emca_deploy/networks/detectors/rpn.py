"""The region proposal network's head (Ren et al., 2015): objectness and deltas for each anchor."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["RpnHead", "flatten_level", "init_convolutions"]


def flatten_level(x: Tensor, width: int) -> Tensor:
    """Return a level's map (N, A * width, H, W) as (N, H * W * A, width): the order of anchors."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)


def init_convolutions(module: nn.Module, std: float = 0.01) -> None:
    """Fill the convolutions of a head: weights from a normal distribution, biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta and layer.bias is not None:
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)


class RpnHead(nn.Module):
    """A 3x3 convolution shared by two 1x1 ones, for all levels."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors, 1)
        init_convolutions(self)

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the objectness logits (N, A_l) and the deltas (N, A_l, 4) of each level."""
        hidden = [F.relu(self.conv(level)) for level in levels]
        objectness = [flatten_level(self.objectness(x), 1).squeeze(-1) for x in hidden]
        return objectness, [flatten_level(self.deltas(x), 4) for x in hidden]
