"""The feature pyramid: maps of equal width at each level, from the outputs of a backbone's stages (Lin et al., 2017)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FeaturePyramid"]


class FeaturePyramid(nn.Module):
    """A feature pyramid with two kinds of top.

    Args:
        in_channels: Widths of the stages' maps, finest first.
        channels: Width of each level.
        extra: None for one subsampled level above the last (Faster R-CNN's P6). "p5" or "c5" for two levels of convolutions,
            computed from the last level or from the last stage (RetinaNet's P6 and P7).
        relu_before_p7: Whether P7 is computed from relu(P6).
    """

    def __init__(self, in_channels: Sequence[int], channels: int, extra: str | None = None, relu_before_p7: bool = True) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.source, self.relu_before_p7 = extra, relu_before_p7
        if extra is not None:
            widths = (channels if extra == "p5" else in_channels[-1], channels)
            self.extra = nn.ModuleList(nn.Conv2d(width, channels, 3, stride=2, padding=1) for width in widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # a convolution made here has a bias

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels, finest first, from the stages' maps: one level for each map, and one or two coarser levels."""
        inner = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for index in range(len(inner) - 2, -1, -1):
            above = F.interpolate(inner[index + 1], size=inner[index].shape[-2:], mode="nearest")
            inner[index] = inner[index] + above
        levels = [output(x) for output, x in zip(self.output, inner, strict=True)]
        if self.source is None:
            return [*levels, F.max_pool2d(levels[-1], 1, stride=2)]
        p6 = self.extra[0](levels[-1] if self.source == "p5" else maps[-1])
        return [*levels, p6, self.extra[1](F.relu(p6) if self.relu_before_p7 else p6)]
