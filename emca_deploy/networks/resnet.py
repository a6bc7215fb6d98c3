"""ResNet with a channel attention module in chosen blocks: the plain network, SE, ECA, SRM and the EMCA family."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from emca_deploy.errors import InputError
from emca_deploy.networks.attention import (
    ChannelAttention,
    EfficientExcitation,
    SqueezeExcitation,
    StyleExcitation,
    mean_descriptor,
    style_descriptor,
)

__all__ = ["STAGE_BLOCKS", "AttentionConfig", "AttentionKind", "Placement", "Position", "ResNet", "stage_channels"]

AttentionKind = Literal["none", "se", "eca", "srm"]
Placement = Literal["all", "first", "last"]
Position = Literal["residual", "output"]

STAGE_BLOCKS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Blocks per stage by depth (He et al., 2016, table 1)."""

STAGES = 4
STAGE_WIDTHS = (64, 128, 256, 512)
BOTTLENECK_EXPANSION = 4

_CHOICES: dict[str, tuple[int | str, ...]] = {
    "kind": ("none", "se", "eca", "srm"),
    "placement": ("all", "first", "last"),
    "previous_stages": (0, 1, 2, 3, "all"),
    "blocks_per_stage": (1, "all"),
    "position": ("residual", "output"),
}


@dataclass(frozen=True)
class AttentionConfig:
    """Which attention a network has and where.

    Attributes:
        kind: the excitation.
        placement: the blocks of each stage that carry a module.
        previous_stages: S, how many preceding stages feed a module (0, 1, 2, 3 or "all").
        blocks_per_stage: N, how many blocks of each: the last one (1) or "all".
        position: on the residual branch before the addition, or on the block's output.
        eca_kernel_sizes: one odd kernel size a stage, where ECA's formula does not hold (ECANet's released weights).
        se_bias: whether SE's two layers have biases (timm's have).
        se_reduction: SE's channels divided by its hidden width; one for all stages, or one a stage (timm never goes below 8
            hidden channels, which makes the narrow stages' smaller).

    Raises:
        InputError: a field has a value that no network can be built from.
    """

    kind: AttentionKind = "none"
    placement: Placement = "all"
    previous_stages: int | Literal["all"] = 0
    blocks_per_stage: Literal[1, "all"] = "all"
    position: Position = "residual"
    eca_kernel_sizes: tuple[int, ...] | None = None
    se_bias: bool = False
    se_reduction: int | tuple[int, ...] = 16

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices or isinstance(value, bool):
                raise InputError(f"model option {name}={value!r} does not exist", f"one of {', '.join(map(repr, choices))}")
        kernels = self.eca_kernel_sizes
        if kernels is not None and (len(kernels) != STAGES or any(k < 1 or k % 2 == 0 for k in kernels)):
            raise InputError(f"model option eca_kernel_sizes={kernels!r}", "four odd numbers, one a stage, or leave it out")
        reductions = self.se_reduction if isinstance(self.se_reduction, tuple) else (self.se_reduction,) * STAGES
        if len(reductions) != STAGES or any(not 1 <= r <= STAGE_WIDTHS[0] for r in reductions):
            raise InputError(
                f"model option se_reduction={self.se_reduction!r}", f"a number from 1 to {STAGE_WIDTHS[0]}, or four, one a stage"
            )

    def reduction(self, stage: int) -> int:
        """Return SE's reduction in stage `stage`, counted from 0."""
        return self.se_reduction[stage] if isinstance(self.se_reduction, tuple) else self.se_reduction

    def has_module(self, block: int, blocks: int) -> bool:
        """Return whether block number `block` of a stage with `blocks` blocks carries a module."""
        if self.kind == "none":
            return False
        return self.placement == "all" or block == (0 if self.placement == "first" else blocks - 1)

    def sources(self, stage: int, stage_blocks: Sequence[int]) -> list[tuple[int, int]]:
        """Return the (stage, block) pairs that feed a module of stage `stage` (counted from 0), older first."""
        reach = stage if self.previous_stages == "all" else min(self.previous_stages, stage)
        return [
            (earlier, block)
            for earlier in range(stage - reach, stage)
            for block in range(stage_blocks[earlier])
            if self.blocks_per_stage == "all" or block == stage_blocks[earlier] - 1
        ]


def stage_channels(depth: int) -> tuple[int, ...]:
    """Return how many channels leave each stage of a ResNet of `depth`."""
    expansion = 1 if depth < 50 else BOTTLENECK_EXPANSION
    return tuple(width * expansion for width in STAGE_WIDTHS)


class Stem(nn.Sequential):
    """The ImageNet stem: 7x7 convolution of stride 2, batch norm, ReLU, 3x3 max pooling of stride 2.

    Caffe's pools without padding, the last windows reaching over the edge.
    """

    def __init__(self, channels: int, caffe: bool = False) -> None:
        super().__init__(
            OrderedDict(
                conv=nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
                bn=nn.BatchNorm2d(channels),
                relu=nn.ReLU(inplace=True),
                pool=nn.MaxPool2d(3, stride=2, padding=0 if caffe else 1, ceil_mode=caffe),
            )
        )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))


class _Block(nn.Module):
    """What both block kinds share: the attention's place and the addition."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, attention: ChannelAttention | None, position: Position
    ) -> None:
        super().__init__()
        self.attention = attention
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.position = position

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, previous: Sequence[Tensor] = ()) -> Tensor:
        y = self.residual(x)
        if self.attention is None:
            return F.relu(y + self.shortcut(x))
        if self.position == "residual":
            return F.relu(self.attention(y, previous) + self.shortcut(x))
        out: Tensor = self.attention(F.relu(y + self.shortcut(x)), previous)
        return out


class BasicBlock(_Block):
    """Two 3x3 convolutions (depths 18 and 34); `width` channels out."""

    def __init__(self, in_channels: int, width: int, stride: int, attention: ChannelAttention | None, position: Position) -> None:
        super().__init__(in_channels, width, stride, attention, position)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def residual(self, x: Tensor) -> Tensor:
        """Return the residual branch before attention."""
        y: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return y


class Bottleneck(_Block):
    """1x1, 3x3, 1x1 convolutions (depths 50 and up); 4 * `width` channels out. The 3x3 carries the stride."""

    def __init__(self, in_channels: int, width: int, stride: int, attention: ChannelAttention | None, position: Position) -> None:
        out_channels = width * BOTTLENECK_EXPANSION
        super().__init__(in_channels, out_channels, stride, attention, position)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def residual(self, x: Tensor) -> Tensor:
        """Return the residual branch before attention."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        z: Tensor = self.bn3(self.conv3(y))
        return z


class ResNet(nn.Module):
    """A ResNet classifier, (N, 3, H, W) float to logits (N, num_classes), with attention as configured.

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_classes: the head's width.
        attention: which attention, and where.
        caffe: build the variant that follows Caffe's networks, which converted weights need (pretrained-models.pytorch): the
            stride of a bottleneck sits on its first 1x1 convolution, and the stem pools without padding.

    Raises:
        KeyError: a depth that is none of these.
    """

    def __init__(
        self, depth: int, num_classes: int = 1000, attention: AttentionConfig | None = None, caffe: bool = False
    ) -> None:
        super().__init__()
        self.attention_config = attention or AttentionConfig()
        self.stage_blocks = STAGE_BLOCKS[depth]
        self._block_class: type[BasicBlock | Bottleneck] = BasicBlock if depth < 50 else Bottleneck
        self.stage_channels = stage_channels(depth)
        self._sources = [self.attention_config.sources(s, self.stage_blocks) for s in range(4)]
        self._squeeze = style_descriptor if self.attention_config.kind == "srm" else mean_descriptor
        self.stem = Stem(STAGE_WIDTHS[0], caffe)
        self.stage1 = self._make_stage(0)
        self.stage2 = self._make_stage(1)
        self.stage3 = self._make_stage(2)
        self.stage4 = self._make_stage(3)
        self.head = nn.Linear(self.stage_channels[3], num_classes)
        self._initialise()
        if caffe:
            self._move_strides()

    def _make_stage(self, stage: int) -> nn.Sequential:
        blocks = OrderedDict[str, nn.Module]()
        in_channels = self.stage_channels[stage - 1] if stage else STAGE_WIDTHS[0]
        for block in range(self.stage_blocks[stage]):
            stride = 2 if block == 0 and stage > 0 else 1
            module = self._make_attention(stage) if self.attention_config.has_module(block, self.stage_blocks[stage]) else None
            blocks[f"block{block}"] = self._block_class(
                in_channels, STAGE_WIDTHS[stage], stride, module, self.attention_config.position
            )
            in_channels = self.stage_channels[stage]
        return nn.Sequential(blocks)

    def _make_attention(self, stage: int) -> ChannelAttention:
        config, channels = self.attention_config, self.stage_channels[stage]
        excitation: nn.Module
        if config.kind == "se":
            excitation = SqueezeExcitation(channels, config.reduction(stage), config.se_bias)
        elif config.kind == "eca":
            excitation = EfficientExcitation(channels, config.eca_kernel_sizes[stage] if config.eca_kernel_sizes else None)
        else:
            excitation = StyleExcitation(channels)
        return ChannelAttention(excitation, channels, [self.stage_channels[s] for s, _ in self._sources[stage]])

    def _move_strides(self) -> None:
        for block in self.modules():
            if isinstance(block, Bottleneck):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # drawing nothing takes torch seconds of imports
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of images `x` (N, 3, H, W)."""
        x = self.stem(x)
        read_later = {source for sources in self._sources for source in sources}
        descriptors: dict[tuple[int, int], Tensor] = {}
        for number, stage in enumerate((self.stage1, self.stage2, self.stage3, self.stage4)):
            previous = [descriptors[source] for source in self._sources[number]]
            for index, block in enumerate(stage):
                x = block(x, previous)
                if (number, index) in read_later:
                    descriptors[number, index] = self._squeeze(x)
        logits: Tensor = self.head(mean_descriptor(x).flatten(1))
        return logits
