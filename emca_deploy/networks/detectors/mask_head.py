"""The mask head (He et al., 2017): a mask of each class for a crop."""

import torch.nn.functional as F
from torch import Tensor, nn

from emca_deploy.tasks.detector_config import DetectorConfig

__all__ = ["MaskHead"]

CONVOLUTIONS = 4


class MaskHead(nn.Module):
    """Four 3x3 convolutions, a transposed one that doubles the size, and a 1x1 one that gives the logits of each class."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        channels = config.fpn_channels
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(CONVOLUTIONS))
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, config.num_classes, 1)
        for layer in (*self.convs, self.upsample, self.logits):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and not layer.weight.is_meta and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, crops: Tensor) -> Tensor:
        """Return the logits (R, K, 2 * bins, 2 * bins) of crops (R, C, bins, bins)."""
        for conv in self.convs:
            crops = F.relu(conv(crops))
        logits: Tensor = self.logits(F.relu(self.upsample(crops)))
        return logits
