"""Channel attention: SE, ECA and SRM excitations, and EMCA's multiscale aggregation in front of them.

A *descriptor* has the statistics of a feature map's channels: shape (N, C, K, 1), float. K is 1 for SE and ECA (the mean) and
2 for SRM (the mean and the standard deviation). With four axes, each step below exports as one or two ONNX nodes.
"""

import math
from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "ChannelAttention",
    "ChannelConv",
    "EfficientExcitation",
    "MultiscaleAggregation",
    "SqueezeExcitation",
    "StyleExcitation",
    "eca_kernel_size",
    "mean_descriptor",
    "repeat_channels",
    "style_descriptor",
]

STYLE_EPSILON = 1e-5
"""Added to the variance before the square root, as SRM (Lee et al., 2019) does."""


def eca_kernel_size(channels: int) -> int:
    """Return ECA's adaptive kernel size for a number of channels.

    Source: Wang et al., "ECA-Net" (2020), equation 12 with gamma = 2 and b = 1.
    """
    t = int(abs(math.log2(channels) + 1) / 2)
    return t if t % 2 else t + 1


def mean_descriptor(x: Tensor) -> Tensor:
    """Squeeze a feature map (N, C, H, W) to its channel means, (N, C, 1, 1)."""
    return x.mean((2, 3), keepdim=True)


def style_descriptor(x: Tensor) -> Tensor:
    """Squeeze a feature map (N, C, H, W) to its channel means and standard deviations, (N, C, 2, 1).

    The variance is unbiased, as in SRM; for a map of one pixel, where that is undefined, it is 0. It is computed in two passes,
    because E[x^2] - E[x]^2 cancels catastrophically for channels far from zero.
    """
    pixels = x.shape[2] * x.shape[3]
    mean = mean_descriptor(x)
    centred = x - mean
    variance = mean_descriptor(centred * centred) * (pixels / max(pixels - 1, 1))
    return torch.cat([mean, torch.sqrt(variance + STYLE_EPSILON)], dim=2)


def repeat_channels(descriptor: Tensor, channels: int) -> Tensor:
    """Align a descriptor (N, C_m, K, 1) to (N, channels, K, 1) by repeating the whole channel vector (EMCA's CDA)."""
    copies = channels // descriptor.shape[1]
    return descriptor if copies == 1 else torch.cat([descriptor] * copies, dim=1)


class ChannelConv(nn.Conv1d):
    """A one-channel convolution along the channels of a descriptor, (N, C, 1, 1) both ways; weight (1, 1, k), no bias.

    It runs as a two-dimensional convolution over (N, 1, C, 1), because TensorRT before 10 has no one-dimensional convolution.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, descriptor: Tensor) -> Tensor:
        """Convolve across channels."""
        channels = descriptor.shape[1]
        row = descriptor.reshape(-1, 1, channels, 1)
        padding = (self.kernel_size[0] // 2, 0)
        return F.conv2d(row, self.weight.unsqueeze(-1), padding=padding).reshape(-1, channels, 1, 1)


class MultiscaleAggregation(nn.Module):
    """Mix the current descriptor with those of preceding maps: ReLU of a weighted sum, the same for every channel.

    EMCA writes it as Conv1d(1, 1, kernel=R, stride=R) over the (N, C, R) stack, which is a weighted sum over the R scales. Here
    preceding descriptors of equal width are summed before their channels are repeated: the same numbers with far fewer nodes.
    The widths of the preceding maps, older first, divide the width C of the current map.
    """

    def __init__(self, channels: int, previous_channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = channels
        scales = len(previous_channels) + 1
        self._groups = [(width, len(list(run))) for width, run in groupby(previous_channels)]
        self.weight = nn.Parameter(torch.empty(1, 1, scales))
        nn.init.constant_(self.weight, 1.0 / scales)

    def forward(self, current: Tensor, previous: Sequence[Tensor]) -> Tensor:
        """Return the aggregated descriptor (N, C, K, 1) of `current` and the `previous` ones, older first."""
        weight = self.weight.reshape(1, 1, 1, -1)
        total = current * weight[..., -1:]
        start = 0
        for _, count in self._groups:
            stop = start + count
            summed = (torch.cat(list(previous[start:stop]), dim=3) * weight[..., start:stop]).sum(3, keepdim=True)
            total = total + repeat_channels(summed, self.channels)
            start = stop
        return F.relu(total)


class SqueezeExcitation(nn.Module):
    """SE's two fully connected layers, (N, C, 1, 1) to gates (N, C, 1, 1); the hidden width is C / `reduction`.

    They run as 1x1 convolutions, which compute the same product without reshaping. The paper's layers have no bias, timm's do.
    """

    def __init__(self, channels: int, reduction: int = 16, bias: bool = False) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, channels // reduction, bias=bias)
        self.expand = nn.Linear(channels // reduction, channels, bias=bias)

    def forward(self, descriptor: Tensor) -> Tensor:
        """Return the gates, each in (0, 1)."""
        hidden = F.relu(F.conv2d(descriptor, self.reduce.weight[:, :, None, None], self.reduce.bias))
        return torch.sigmoid(F.conv2d(hidden, self.expand.weight[:, :, None, None], self.expand.bias))


class EfficientExcitation(nn.Module):
    """ECA's one-dimensional convolution across channels, (N, C, 1, 1) to gates (N, C, 1, 1)."""

    def __init__(self, channels: int, kernel_size: int | None = None) -> None:
        super().__init__()
        self.conv = ChannelConv(kernel_size or eca_kernel_size(channels))

    def forward(self, descriptor: Tensor) -> Tensor:
        """Return the gates, each in (0, 1)."""
        return torch.sigmoid(self.conv(descriptor))


class StyleExcitation(nn.Module):
    """SRM's channel-wise fully connected layer and batch norm, (N, C, 2, 1) to gates (N, C, 1, 1).

    The layer is a depthwise convolution whose kernel covers (mean, std); batch norm folds into it on export.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cfc = nn.Parameter(torch.zeros(channels, 2))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, descriptor: Tensor) -> Tensor:
        """Return the gates, each in (0, 1)."""
        channels = self.cfc.shape[0]
        mixed = F.conv2d(descriptor, self.cfc.reshape(channels, 1, 2, 1), groups=channels)
        return torch.sigmoid(self.bn(mixed))


class ChannelAttention(nn.Module):
    """Scale a feature map's channels by gates computed from its own descriptor and, in EMCA, from preceding ones.

    `excitation` maps a descriptor to gates (N, C, 1, 1); `previous_channels` are the widths of the preceding maps, older first.
    """

    def __init__(self, excitation: nn.Module, channels: int, previous_channels: Sequence[int] = ()) -> None:
        super().__init__()
        self.aggregation = MultiscaleAggregation(channels, previous_channels) if previous_channels else None
        self.excitation = excitation
        self.squeeze = style_descriptor if isinstance(excitation, StyleExcitation) else mean_descriptor

    def forward(self, x: Tensor, previous: Sequence[Tensor] = ()) -> Tensor:
        """Return `x` (N, C, H, W) with each channel scaled; `previous` has the descriptors of the preceding maps."""
        descriptor = self.squeeze(x)
        if self.aggregation is not None:
            descriptor = self.aggregation(descriptor, previous)
        gates: Tensor = self.excitation(descriptor)
        return x * gates
