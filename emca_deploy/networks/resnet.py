"""ResNets with channel attention in chosen blocks: the plain network, SE, ECA, SRM and the EMCA family."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

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

__all__ = ["STAGE_BLOCKS", "AttentionConfig", "Caffe", "ResNet", "ResNetBackbone", "stage_channels"]

AttentionKind = Literal["none", "se", "eca", "srm"]
Placement = Literal["all", "first", "last"]
Position = Literal["residual", "output"]
Caffe = bool | Literal["stride"]

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
    "kind": get_args(AttentionKind),
    "placement": get_args(Placement),
    "previous_stages": (0, 1, 2, 3, "all"),
    "blocks_per_stage": (1, "all"),
    "position": get_args(Position),
}


@dataclass(frozen=True)
class AttentionConfig:
    """The attention of a network, and where it is.

    Attributes:
        kind: Excitation.
        placement: Blocks of each stage that have an attention module.
        previous_stages: Number of preceding stages that feed a module (S in the paper): 0, 1, 2, 3 or "all".
        blocks_per_stage: Number of blocks of each of these stages (N in the paper): the last one (1) or "all".
        position: Place in a block: on the residual branch before the addition, or on the block's output.
        eca_kernel_sizes: Odd kernel size per stage, where it is not that of ECA's formula (ECANet's released weights).
        se_bias: Whether SE's two layers have biases, as timm's do.
        se_reduction: SE's channels divided by its hidden width, one number for all stages or one per stage. timm's are smaller in
            narrow stages, because it keeps at least 8 hidden channels.

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
            raise InputError(
                f"model option eca_kernel_sizes={kernels!r}", "give four odd numbers, one per stage, or leave it out"
            )
        if len(self.reductions) != STAGES or any(not 1 <= r <= STAGE_WIDTHS[0] for r in self.reductions):
            raise InputError(
                f"model option se_reduction={self.se_reduction!r}",
                f"give a number from 1 to {STAGE_WIDTHS[0]}, or four, one per stage",
            )

    @property
    def reductions(self) -> tuple[int, ...]:
        """SE's reduction in each stage."""
        return self.se_reduction if isinstance(self.se_reduction, tuple) else (self.se_reduction,) * STAGES

    def has_module(self, block: int, blocks: int) -> bool:
        """Return whether block number `block` of a stage with `blocks` blocks has an attention module."""
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
    """Return the number of output channels of each stage of a ResNet of `depth`."""
    expansion = 1 if depth < 50 else BOTTLENECK_EXPANSION
    return tuple(width * expansion for width in STAGE_WIDTHS)


class Stem(nn.Sequential):
    """The ImageNet stem: 7x7 convolution of stride 2, batch norm, ReLU, 3x3 max pooling of stride 2.

    Caffe's stem pools without padding; its last windows reach over the edge.
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
    """A residual block whose 3x3 convolutions have `width` channels.

    Depths 18 and 34 have two 3x3 convolutions. Larger depths have a `bottleneck`: 1x1, 3x3 and 1x1 convolutions, 4 * `width`
    channels out, the stride on the 3x3 one, or in Caffe's networks on the first.
    """

    def __init__(
        self, in_channels: int, width: int, stride: int, attention: ChannelAttention | None, position: Position, *,
        bottleneck: bool, caffe: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        out_channels = width * (BOTTLENECK_EXPANSION if bottleneck else 1)
        kernel = 1 if bottleneck else 3
        strides = (1, stride) if bottleneck and not caffe else (stride, 1)
        self.attention = attention
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.position, self.bottleneck = position, bottleneck
        self.conv1 = nn.Conv2d(in_channels, width, kernel, stride=strides[0], padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=strides[1], padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        if bottleneck:
            self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out_channels)

    def residual(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.bn3(self.conv3(F.relu(y))) if self.bottleneck else y

    def forward(self, x: Tensor, previous: Sequence[Tensor] = ()) -> Tensor:
        y = self.residual(x)
        if self.attention is None:
            return F.relu(y + self.shortcut(x))
        if self.position == "residual":
            return F.relu(self.attention(y, previous) + self.shortcut(x))
        out: Tensor = self.attention(F.relu(y + self.shortcut(x)), previous)
        return out


class _Trunk(nn.Module):
    """The stem and the four stages of a ResNet, with attention as configured.

    Args:
        depth: 18, 34, 50, 101 or 152.
        attention: Attention of the network; none where None.
        caffe: Whether to build Caffe's variant, which converted weights need (pretrained-models.pytorch): a bottleneck has its
            stride on the first 1x1 convolution, and the stem pools without padding. "stride" has the first of these two only
            (mmdetection's style='caffe').

    Raises:
        KeyError: there is no such depth.
    """

    def __init__(self, depth: int, attention: AttentionConfig | None = None, caffe: Caffe = False) -> None:
        super().__init__()
        self.attention_config = attention or AttentionConfig()
        self.stage_blocks = STAGE_BLOCKS[depth]
        self.stage_channels = stage_channels(depth)
        self._variant = {"bottleneck": depth >= 50, "caffe": bool(caffe)}
        self._sources = [self.attention_config.sources(s, self.stage_blocks) for s in range(4)]
        self._squeeze = style_descriptor if self.attention_config.kind == "srm" else mean_descriptor
        self.stem = Stem(STAGE_WIDTHS[0], caffe is True)
        self.stage1 = self._make_stage(0)
        self.stage2 = self._make_stage(1)
        self.stage3 = self._make_stage(2)
        self.stage4 = self._make_stage(3)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # on the meta device, torch takes seconds for nothing
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _make_stage(self, stage: int) -> nn.Sequential:
        config, count = self.attention_config, self.stage_blocks[stage]
        blocks = OrderedDict[str, nn.Module]()
        in_channels = self.stage_channels[stage - 1] if stage else STAGE_WIDTHS[0]
        for block in range(count):
            stride = 2 if block == 0 and stage > 0 else 1
            attention = self._make_attention(stage) if config.has_module(block, count) else None
            width = STAGE_WIDTHS[stage]
            blocks[f"block{block}"] = _Block(in_channels, width, stride, attention, config.position, **self._variant)
            in_channels = self.stage_channels[stage]
        return nn.Sequential(blocks)

    def _make_attention(self, stage: int) -> ChannelAttention:
        config, channels = self.attention_config, self.stage_channels[stage]
        excitation: nn.Module
        if config.kind == "se":
            excitation = SqueezeExcitation(channels, config.reductions[stage], config.se_bias)
        elif config.kind == "eca":
            excitation = EfficientExcitation(channels, config.eca_kernel_sizes[stage] if config.eca_kernel_sizes else None)
        else:
            excitation = StyleExcitation(channels)
        return ChannelAttention(excitation, channels, [self.stage_channels[s] for s, _ in self._sources[stage]])

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Return the output of each stage, (N, C, H/4, W/4) to (N, C, H/32, W/32), for images `x` (N, 3, H, W)."""
        x = self.stem(x)
        read_later = {source for sources in self._sources for source in sources}
        descriptors: dict[tuple[int, int], Tensor] = {}
        maps = []
        for number, stage in enumerate((self.stage1, self.stage2, self.stage3, self.stage4)):
            previous = [descriptors[source] for source in self._sources[number]]
            for index, block in enumerate(stage):
                x = block(x, previous)
                if (number, index) in read_later:
                    descriptors[number, index] = self._squeeze(x)
            maps.append(x)
        return maps


class ResNet(_Trunk):
    """A ResNet classifier, (N, 3, H, W) float to logits (N, num_classes), with attention as configured.

    `num_classes` is the width of the logits. The other arguments are those of `ResNetBackbone`.

    Raises:
        KeyError: there is no such depth.
    """

    def __init__(
        self, depth: int, num_classes: int = 1000, attention: AttentionConfig | None = None, caffe: Caffe = False
    ) -> None:
        super().__init__(depth, attention, caffe)
        self.head = nn.Linear(self.stage_channels[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of images `x` (N, 3, H, W)."""
        logits: Tensor = self.head(mean_descriptor(self.stage_maps(x)[-1]).flatten(1))
        return logits


class ResNetBackbone(_Trunk):
    """A ResNet without its classifier, as the body of a detector."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the output of each stage; see `stage_maps`."""
        return self.stage_maps(x)
