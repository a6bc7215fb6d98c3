"""A ResNet in the forms and key names of other repositories, for foreign checkpoints."""

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class SeNet(nn.Module):
    """`se.fc.{0,2}` of senet.pytorch (without bias), or of SRM's own repository (with)."""

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        hidden = channels // 16
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=bias), nn.ReLU(), nn.Linear(hidden, channels, bias=bias), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class SeConv(nn.Module):
    """`se.fc{1,2}` of timm, `se_module.fc{1,2}` of pretrained-models: 1x1 convolutions with bias."""

    def __init__(self, channels: int, smallest: int = 1) -> None:
        super().__init__()
        hidden = max(channels // 16, smallest)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Eca(nn.Module):
    """`eca.conv` of ECANet, `se.conv` of timm."""

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        row = F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)
        return x * torch.sigmoid(self.conv(row).transpose(-1, -2).unsqueeze(-1))


class Srm(nn.Module):
    """`rclb` of SRM's repository; others call its channel-wise layer `convolution`."""

    def __init__(self, channels: int, convolution: bool = False) -> None:
        super().__init__()
        self.cfc = (
            nn.Conv1d(channels, channels, 2, groups=channels, bias=False)
            if convolution
            else nn.Parameter(torch.zeros(channels, 2))
        )
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        styles = torch.stack([flat.mean(2), (flat.var(2) + 1e-5).sqrt()], 2)
        mixed = self.cfc(styles) if isinstance(self.cfc, nn.Conv1d) else (styles * self.cfc).sum(2, keepdim=True)
        return x * torch.sigmoid(self.bn(mixed.unsqueeze(-1)))


class Block(nn.Module):
    """Torchvision's block with an attention module, of any name, before the addition."""

    def __init__(self, inplanes: int, planes: int, stride: int, depth: int, caffe: bool) -> None:
        super().__init__()
        if depth < 50:
            out, shapes = planes, [(inplanes, planes, 3, stride), (planes, planes, 3, 1)]
        else:
            first, second = (stride, 1) if caffe else (1, stride)
            out, shapes = planes * 4, [(inplanes, planes, 1, first), (planes, planes, 3, second), (planes, planes * 4, 1, 1)]
        for number, (i, o, k, s) in enumerate(shapes, 1):
            self.add_module(f"conv{number}", nn.Conv2d(i, o, k, s, padding=k // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(o))
        self.convs, self.out, self.attention_name = len(shapes), out, ""
        self.downsample = None
        if stride != 1 or inplanes != out:
            self.downsample = nn.Sequential(nn.Conv2d(inplanes, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.convs + 1):
            y = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(y))
            y = F.relu(y) if number < self.convs else y
        if self.attention_name:
            y = self.get_submodule(self.attention_name)(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ForeignResNet(nn.Module):
    """Torchvision's network; with `caffe`, that of pretrained-models, which wraps the stem in `layer0`.

    Args:
        depth: Number of layers, 18, 34 or 50.
        classes: Number of logits.
        name: Name of the attention module in blocks; "" for none.
        attention: Function that makes one from (stage counted from 0, channels).
        caffe: Whether strides and pooling are those of Caffe.
    """

    def __init__(
        self,
        depth: int,
        classes: int,
        name: str = "",
        attention: Callable[[int, int], nn.Module] | None = None,
        caffe: bool = False,
    ) -> None:
        super().__init__()
        stem = OrderedDict(conv1=nn.Conv2d(3, 64, 7, 2, 3, bias=False), bn1=nn.BatchNorm2d(64))
        self.caffe, channels = caffe, 64
        if caffe:
            self.layer0 = nn.Sequential(stem)
        else:
            self.conv1, self.bn1 = stem["conv1"], stem["bn1"]
        for stage, blocks in enumerate(STAGES[depth]):
            layer = nn.Sequential()
            for number in range(blocks):
                block = Block(channels, 64 * 2**stage, 2 if stage and not number else 1, depth, caffe)
                if attention is not None:
                    block.attention_name = name
                    block.add_module(name, attention(stage, block.out))
                layer.append(block)
                channels = block.out
            self.add_module(f"layer{stage + 1}", layer)
        self.add_module("last_linear" if caffe else "fc", nn.Linear(channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        if self.caffe:
            x = F.max_pool2d(F.relu(self.layer0(x)), 3, 2, ceil_mode=True)
        else:
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.get_submodule("last_linear" if self.caffe else "fc")(x.mean((2, 3)))
