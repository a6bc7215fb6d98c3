"""PKCAM-ECA ResNets: the network that the released EMCA code trains (arXiv 2211.07521), with that code's own key names.

Every block has attention. The first block of a stage uses the local branch only, but has the other branch's weights too.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emca_deploy.networks.attention import ChannelConv, eca_kernel_size, mean_descriptor, repeat_channels
from emca_deploy.networks.resnet import BOTTLENECK_EXPANSION, STAGE_BLOCKS, STAGE_WIDTHS, stage_channels

__all__ = ["PkcamBackbone", "PkcamResNet"]


class ScaleSum(nn.Conv1d):
    """Conv1d(1, 1, kernel=R, stride=R) over the channel-major stack of R descriptors: the same weighted sum for every channel."""

    def __init__(self, scales: int) -> None:
        super().__init__(1, 1, scales, stride=scales, bias=False)

    def forward(self, descriptors: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """Return the sum (N, C, 1, 1) of R descriptors (N, C, 1, 1)."""
        return (torch.cat(list(descriptors), dim=3) * self.weight.reshape(1, 1, 1, -1)).sum(3, keepdim=True)


def _residual(in_channels: int, width: int, stride: int, bottleneck: bool) -> nn.Sequential:
    """Return the convolutions of a residual branch, each with batch norm and, but for the last, ReLU."""
    convolutions = [(in_channels, width, 3, stride), (width, width, 3, 1)]
    if bottleneck:
        convolutions = [(in_channels, width, 1, 1), (width, width, 3, stride), (width, width * BOTTLENECK_EXPANSION, 1, 1)]
    layers: list[nn.Module] = []
    for channels, out_channels, kernel, step in convolutions:
        conv = nn.Conv2d(channels, out_channels, kernel, stride=step, padding=kernel // 2, bias=False)
        layers += [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class PkcamBlock(nn.Module):
    """A residual block whose output is relu(residual * (1 + gates) + shortcut).

    Its 3x3 convolutions have `width` channels. `stage` counts from 1 and is the number of stage descriptors that the block
    reads. The `first` block of a stage does not use the global branch.
    """

    def __init__(self, in_channels: int, width: int, stride: int, stage: int, first: bool, bottleneck: bool) -> None:
        super().__init__()
        channels = width * (BOTTLENECK_EXPANSION if bottleneck else 1)
        self.first = first
        self.residual = _residual(in_channels, width, stride, bottleneck)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )
        kernel_size = eca_kernel_size(channels)
        self.ECA_excitation_local = nn.Sequential(ChannelConv(kernel_size), nn.Sigmoid())
        self.ECA_excitation_global_stage = nn.Sequential(ChannelConv(kernel_size), nn.Sigmoid())
        self.stage_in_fusion = nn.Sequential(ScaleSum(stage + 1), nn.ReLU())
        self.out_fusion = nn.Sequential(ScaleSum(2), nn.Sigmoid())

    def gates(self, descriptor: Tensor, stages: Sequence[Tensor]) -> Tensor:
        """Return the gates (N, C, 1, 1) from this block's descriptor and the stage descriptors aligned to C."""
        local: Tensor = self.ECA_excitation_local(descriptor)
        if self.first:
            return local
        mixed = self.stage_in_fusion([*stages, descriptor])
        fused: Tensor = self.out_fusion([local, self.ECA_excitation_global_stage(mixed)])
        return fused

    def forward(self, x: Tensor, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the block's output and its residual branch's descriptor (N, C, 1, 1)."""
        y = self.residual(x)
        descriptor = mean_descriptor(y)
        return F.relu(y * (1 + self.gates(descriptor, stages)) + self.shortcut(x)), descriptor


class _Trunk(nn.Module):
    """The stem and the four stages of a PKCAM-ECA ResNet of depth 18, 34, 50, 101 or 152."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stage_channels = stage_channels(depth)
        self.pre = nn.Sequential(
            nn.Conv2d(3, STAGE_WIDTHS[0], 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(STAGE_WIDTHS[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stage1 = self._make_stage(1, depth)
        self.stage2 = self._make_stage(2, depth)
        self.stage3 = self._make_stage(3, depth)
        self.stage4 = self._make_stage(4, depth)

    def _make_stage(self, stage: int, depth: int) -> nn.Sequential:
        width, in_channels = STAGE_WIDTHS[stage - 1], (STAGE_WIDTHS[0], *self.stage_channels)[stage - 1]
        blocks = []
        for block in range(STAGE_BLOCKS[depth][stage - 1]):
            stride = 2 if block == 0 and stage > 1 else 1
            blocks.append(PkcamBlock(in_channels, width, stride, stage, block == 0, depth >= 50))
            in_channels = self.stage_channels[stage - 1]
        return nn.Sequential(*blocks)

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Return the output of each stage, (N, C, H/4, W/4) to (N, C, H/32, W/32), for images `x` (N, 3, H, W)."""
        x = self.pre(x)
        stages, maps = [mean_descriptor(x)], []
        for channels, stage in zip(self.stage_channels, (self.stage1, self.stage2, self.stage3, self.stage4), strict=True):
            aligned = [repeat_channels(descriptor, channels) for descriptor in stages]
            for block in stage:
                x, descriptor = block(x, aligned)
            stages.append(descriptor)
            maps.append(x)
        return maps


class PkcamResNet(_Trunk):
    """A PKCAM-ECA ResNet classifier of depth 18, 34, 50, 101 or 152, (N, 3, H, W) float to logits (N, num_classes)."""

    def __init__(self, depth: int, num_classes: int = 1000) -> None:
        super().__init__(depth)
        self.linear = nn.Linear(self.stage_channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of images `x` (N, 3, H, W)."""
        logits: Tensor = self.linear(mean_descriptor(self.stage_maps(x)[-1]).flatten(1))
        return logits


class PkcamBackbone(_Trunk):
    """A PKCAM-ECA ResNet without its classifier, as the body of a detector."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the output of each stage; see `stage_maps`."""
        return self.stage_maps(x)
